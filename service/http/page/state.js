// What the service says of itself: the line at the top, and what it can do.

import { $, askJson } from "./api.js";

export const service = { copies: false, fields: [] }; // whether it finds copies; its filter fields

export async function refreshState() {
  try {
    const [stats, model] = await Promise.all([askJson("stats"), askJson("model")]);
    service.copies = Boolean(stats.copies);
    service.fields = stats.filter_fields.filter((field) => field.complete).map(({ name }) => name);
    const count = stats.images === 1 ? "1 image" : `${stats.images.toLocaleString()} images`;
    const lag = stats.feed.lag_s >= 1 ? `, ${Math.round(stats.feed.lag_s)} s behind` : "";
    $("state").textContent = `${count}${lag} · ${model.bits}-bit codes · ${stats.engine} engine`;
    $("state").className = "";
    $("examples").hidden = stats.images > 0;
    $("duplicates-section").hidden = !service.copies;
    const classes = model.classes.length ? ` knows ${model.classes.join(", ")}` : "";
    $("about").textContent = `Model ${model.id.slice(0, 8)}${classes}`;
    return true;
  } catch (error) {
    $("state").textContent = `Not ready: ${error.message}`;
    $("state").className = "problem";
    return false;
  }
}
