// Small images in a list. Thumbnails are fetched when they come into view, by script, because <img>
// cannot send a key.

import { ask } from "./api.js";

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((entry) => entry.isIntersecting)) {
    seen.unobserve(entry.target);
    fill(entry.target, `images/${encodeURIComponent(entry.target.dataset.id)}/thumbnail`);
  }
}, { rootMargin: "300px" });

export async function fill(image, path) {
  try {
    image.dataset.path = path;
    const url = URL.createObjectURL(await (await ask(path)).blob());
    if (image.dataset.path !== path) return; // it shows another image by now
    image.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    image.src = url;
  } catch {
    image.alt = "The image is not available.";
  }
}

// Returns a list item with the image and lines of text below it. A click opens the image.
export function tile(id, lines = []) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  const image = document.createElement("img");
  const name = document.createElement("span");
  button.type = "button";
  image.alt = "";
  image.dataset.id = item.dataset.id = id;
  name.className = "name";
  name.textContent = button.title = id;
  button.append(image, name);
  for (const text of lines) {
    const line = document.createElement("span");
    line.className = "score";
    line.textContent = text;
    button.append(line);
  }
  button.addEventListener("click", () => {
    document.dispatchEvent(new CustomEvent("open-image", { detail: id }));
  });
  item.append(button);
  seen.observe(image);
  return item;
}

// Removes an image from all lists, and tells them.
export function forget(id) {
  for (const item of document.querySelectorAll("li[data-id]")) {
    if (item.dataset.id === id) item.remove();
  }
  document.dispatchEvent(new CustomEvent("image-deleted", { detail: id }));
}
