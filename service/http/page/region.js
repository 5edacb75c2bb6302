// A box that people draw on the query, or write as numbers: the part of it to search for.

import { $ } from "./api.js";

const SIDES = ["left", "top", "width", "height"]; // in percent of the image
const LEAST = 2; // percent of a side that a box has

const read = () => SIDES.map((side) => Number($(`region-${side}`).value));

// Returns the part as the API takes it; null for the whole image.
export function region() {
  const [left, top, width, height] = read().map((value) => value / 100);
  if (left === 0 && top === 0 && width === 1 && height === 1) return null;
  return { x: left, y: top, width: Math.min(width, 1 - left), height: Math.min(height, 1 - top) };
}

function show() {
  const [left, top, width, height] = read();
  const whole = width === 100 && height === 100;
  const box = $("region-box");
  box.hidden = whole;
  Object.assign(box.style, {
    left: `${left}%`, top: `${top}%`,
    width: `${Math.min(width, 100 - left)}%`, height: `${Math.min(height, 100 - top)}%`,
  });
}

export function setRegion(values = [0, 0, 100, 100]) {
  SIDES.forEach((side, n) => { $(`region-${side}`).value = Math.round(values[n] * 10) / 10; });
  show();
}

// Calls ``done`` when a box was drawn, or its numbers were changed.
export function watchRegion(done) {
  const frame = $("region-frame");
  let start = null;
  const place = (event) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    const within = (value) => Math.max(0, Math.min(100, 100 * value));
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
  };
  frame.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    frame.setPointerCapture(event.pointerId);
    start = place(event);
  });
  frame.addEventListener("pointermove", (event) => {
    if (!start) return;
    const end = place(event);
    const [left, top] = start.map((value, n) => Math.min(value, end[n], 100 - LEAST));
    const [width, height] = start.map((value, n) => Math.abs(value - end[n]));
    setRegion([left, top, Math.max(width, LEAST), Math.max(height, LEAST)]);
  });
  frame.addEventListener("pointerup", (event) => {
    if (!start) return;
    const end = place(event);
    const moved = Math.max(...start.map((value, n) => Math.abs(value - end[n]))) > LEAST;
    start = null;
    if (!moved) setRegion(); // a click takes the box away
    done();
  });
  frame.addEventListener("pointercancel", () => { start = null; });
  for (const side of SIDES) {
    $(`region-${side}`).addEventListener("change", () => {
      show();
      done();
    });
  }
}
