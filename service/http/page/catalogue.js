// Lists the stored images, and adds new ones.

import { $, ask, askJson, form } from "./api.js";
import { filterOf } from "./filter.js";
import { refreshState } from "./state.js";
import { tile } from "./tiles.js";

const BATCH = 20; // images sent in one request
const PAGE = 60; // images listed at a time

export const work = { adding: false };
let cursor = "0";
let listings = 0; // a reply to an earlier listing is dropped

export async function more() {
  const mine = ++listings;
  $("more").disabled = true;
  try {
    const wanted = { limit: PAGE, cursor, filter: filterOf($("filter").value) };
    const page = await askJson(`images?${new URLSearchParams(wanted)}`);
    if (mine !== listings) return;
    $("catalogue").append(...page.images.map((image) => tile(image.id)));
    cursor = page.next_cursor;
    $("more").hidden = cursor === null;
    const empty = !$("catalogue").children.length;
    const chosen = $("filter").value.trim();
    $("catalogue-note").textContent = empty && chosen
      ? `No image ${cursor === null ? "" : "so far "}matches ${chosen}.`
      : empty
      ? "No images are stored yet. Add your own, or load the examples to try the search."
      : "";
  } catch (error) {
    if (mine !== listings) return;
    $("catalogue-note").textContent = `The images could not be listed: ${error.message}`;
    $("more").hidden = false;
  }
  $("more").disabled = false;
}

export async function reloadCatalogue() {
  cursor = "0";
  $("catalogue").replaceChildren();
  await more();
}

const idOf = (file) =>
  (file.webkitRelativePath || file.name).replace(/[^A-Za-z0-9._:~-]+/g, "-").slice(-128);

export async function add(files, name = idOf) {
  if (work.adding || !files.length) return;
  work.adding = true;
  $("adding").hidden = false;
  const failures = [];
  for (let first = 0; first < files.length; first += BATCH) {
    const batch = files.slice(first, first + BATCH);
    $("progress").value = first / files.length;
    $("progress-text").textContent = `Adding ${first + batch.length} of ${files.length} …`;
    const fields = batch.map((file) => ["images", file]);
    failures.push(...(await send([...fields, ["ids", JSON.stringify(batch.map(name))]], batch)));
  }
  $("adding").hidden = true;
  work.adding = false;
  showFailures(failures, files.length);
  await Promise.all([refreshState(), reloadCatalogue()]);
}

async function send(fields, batch) {
  let items;
  try {
    ({ items } = await askJson("index", form(fields)));
  } catch (error) {
    items = error.body?.items ?? batch.map(() => ({ error: { detail: error.message } }));
  }
  return items.flatMap((item, n) =>
    item.error ? [`${batch[n].webkitRelativePath || batch[n].name}: ${item.error.detail}`] : []);
}

function showFailures(failures, count) {
  const lines = failures.map((text) => {
    const line = document.createElement("li");
    line.textContent = text;
    return line;
  });
  $("failures").hidden = !failures.length;
  $("failures").querySelector("summary").textContent =
    `${failures.length} of ${count} files could not be added`;
  $("failures").querySelector("ul").replaceChildren(...lines);
}

export async function addExamples() {
  $("examples").disabled = true;
  try {
    const names = await askJson("page/examples");
    const files = await Promise.all(names.map(async (path) => {
      const bytes = await (await ask(`page/examples/${path}`)).blob();
      return new File([bytes], path.replaceAll("/", "-"), { type: "image/jpeg" });
    }));
    await add(files, (file) => file.name.replace(/\.jpg$/, ""));
  } catch (error) {
    $("catalogue-note").textContent = `The examples could not be loaded: ${error.message}`;
  }
  $("examples").disabled = false;
}
