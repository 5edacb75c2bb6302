// The web page. It uses the public HTTP API and keeps its state in memory only.

import { $, ask, askJson, form } from "./api.js";
import { filterOf } from "./filter.js";
import { region, setRegion, watchRegion } from "./region.js";

const BATCH = 20; // images sent in one request
const PAGE = 60; // images added to the catalogue at a time
const STATE_MS = 5000; // interval between updates of the status line

let cursor = "0";
let shown = null; // id of the image in the viewer
let adding = false;
let query = null; // the file, or the id of the image, that was searched for last
const marks = new Map(); // ids of examples: true for more like this, false for less

// ---- thumbnails: fetched when they come into view, by script, because <img> cannot send a key

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((entry) => entry.isIntersecting)) {
    seen.unobserve(entry.target);
    fill(entry.target, `images/${encodeURIComponent(entry.target.dataset.id)}/thumbnail`);
  }
}, { rootMargin: "300px" });

async function fill(image, path) {
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

function tile({ id, score }) {
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
  if (score !== undefined) {
    const line = document.createElement("span");
    line.className = "score";
    line.textContent = `score ${score.toFixed(3)}`;
    button.append(line);
  }
  button.addEventListener("click", () => view(id));
  item.append(button);
  if (score !== undefined) item.append(marker(id, true), marker(id, false));
  seen.observe(image);
  return item;
}

function marker(id, like) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "mark";
  button.textContent = like ? "+" : "−";
  button.setAttribute("aria-label", `${like ? "More" : "Less"} like ${id}`);
  button.title = like ? "More like this" : "Less like this";
  button.dataset.mark = `${like}`;
  button.addEventListener("click", () => {
    if (marks.get(id) === like) marks.delete(id);
    else marks.set(id, like);
    showMarks();
  });
  button.setAttribute("aria-pressed", marks.get(id) === like);
  return button;
}

function showMarks() {
  for (const button of document.querySelectorAll("#results .mark")) {
    const like = button.dataset.mark === "true";
    button.setAttribute("aria-pressed", marks.get(button.parentElement.dataset.id) === like);
  }
  const more = [...marks.values()].filter((like) => like).length;
  $("marked").hidden = !marks.size;
  $("marked-note").textContent = `${more} more like this, ${marks.size - more} less like this`;
}

// ---- search

let searches = 0; // a reply to an earlier search is dropped
async function search(options, label) {
  const mine = ++searches;
  $("results").replaceChildren();
  $("results").setAttribute("aria-busy", "true");
  $("results-note").textContent = "Searching …";
  try {
    const found = await askJson("search", options);
    if (mine !== searches) return;
    const hits = found.results;
    $("results").replaceChildren(...hits.map(tile));
    const count = hits.length === 1 ? "1 image" : `${hits.length} images`;
    $("results-note").textContent = hits.length
      ? `${count} nearest to ${label}, found in ${Math.round(found.took_ms)} ms.`
      : $("filter").value.trim() ? "No other image matches." : "No other image is stored.";
    $("results-title").focus();
  } catch (error) {
    if (mine === searches) $("results-note").textContent = `The search failed: ${error.message}`;
  } finally {
    if (mine === searches) $("results").removeAttribute("aria-busy");
  }
}

// Searches for the query again, with the options that the page shows.
async function searchQuery(examples = false) {
  if (query === null) return;
  const stored = typeof query === "string";
  const fields = [["k", $("k").value], ["exclude_same", true]];
  try {
    const chosen = filterOf($("filter").value);
    if (chosen) fields.push(["filter", chosen]);
  } catch (error) {
    $("results-note").textContent = error.message;
    return;
  }
  const label = stored ? query : query.name || "the image";
  if (examples) {
    fields.push(["positive", query]);
    for (const [id, like] of marks) fields.push([like ? "positive" : "negative", id]);
    await search(form(fields), `${label} and ${marks.size} examples`);
    return;
  }
  const part = region();
  const about = part ? `a part of ${label}` : label;
  if (!stored) {
    if (part) fields.push(["region", JSON.stringify(part)]);
    await search(form([["image", query], ...fields]), about);
    return;
  }
  const options = Object.fromEntries(fields);
  const body = JSON.stringify({
    ...options, id: query, k: Number(options.k), ...(part && { region: part }),
    ...(options.filter && { filter: parsed(options.filter) }),
  });
  await search({ method: "POST", headers: { "Content-Type": "application/json" }, body }, about);
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text; // the service says what is wrong with it
  }
}

function begin(next, url) {
  for (const id of ["query-preview", "region-image"]) $(id).dataset.path = "";
  query = next;
  marks.clear();
  showMarks();
  setRegion();
  for (const id of ["query-preview", "region-image"]) $(id).src = url;
  $("query-preview").hidden = $("region").hidden = false;
}

async function searchFile(file) {
  const url = URL.createObjectURL(file);
  begin(file, url);
  $("region-image").onload = $("region-image").onerror = () => URL.revokeObjectURL(url);
  $("query-name").textContent = file.name;
  await searchQuery();
}

async function searchStored(id) {
  begin(id, "");
  for (const image of ["query-preview", "region-image"]) {
    fill($(image), `images/${encodeURIComponent(id)}/thumbnail`);
  }
  $("query-name").textContent = id;
  await searchQuery();
}

// ---- viewer

async function view(id) {
  shown = id;
  $("viewer-title").textContent = id;
  $("viewer-image").removeAttribute("src");
  $("viewer-image").alt = `The image ${id}`;
  $("viewer-facts").replaceChildren();
  $("viewer").showModal();
  try {
    const about = await askJson(`images/${encodeURIComponent(id)}`);
    const facts = {
      size: `${about.width} × ${about.height} pixels, ${about.bytes.toLocaleString()} bytes`,
      stored: new Date(about.created).toLocaleString(),
      ...(about.metadata && { metadata: JSON.stringify(about.metadata) }),
    };
    for (const [name, value] of Object.entries(facts)) {
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      $("viewer-facts").append(term, text);
    }
    await fill($("viewer-image"), `images/${encodeURIComponent(id)}/content`);
  } catch (error) {
    $("viewer-image").alt = error.message;
  }
}

async function deleteImage(id) {
  try {
    await ask(`images/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) {
      $("viewer-image").alt = `The image could not be deleted: ${error.message}`;
      return;
    }
  }
  $("viewer").close();
  for (const item of document.querySelectorAll("li[data-id]")) {
    if (item.dataset.id === id) item.remove();
  }
  await refreshState();
}

// ---- catalogue

let listings = 0; // a reply to an earlier listing is dropped
async function more() {
  const mine = ++listings;
  $("more").disabled = true;
  try {
    const wanted = { limit: PAGE, cursor, filter: filterOf($("filter").value) };
    const page = await askJson(`images?${new URLSearchParams(wanted)}`);
    if (mine !== listings) return;
    $("catalogue").append(...page.images.map(tile));
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

async function reloadCatalogue() {
  cursor = "0";
  $("catalogue").replaceChildren();
  await more();
}

const idOf = (file) =>
  (file.webkitRelativePath || file.name).replace(/[^A-Za-z0-9._:~-]+/g, "-").slice(-128);

async function add(files, name = idOf) {
  if (adding || !files.length) return;
  adding = true;
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
  adding = false;
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

async function addExamples() {
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

// ---- status line

async function refreshState() {
  try {
    const [stats, model] = await Promise.all([askJson("stats"), askJson("model")]);
    const count = stats.images === 1 ? "1 image" : `${stats.images.toLocaleString()} images`;
    const lag = stats.feed.lag_s >= 1 ? `, ${Math.round(stats.feed.lag_s)} s behind` : "";
    $("state").textContent = `${count}${lag} · ${model.bits}-bit codes · ${stats.engine} engine`;
    $("state").className = "";
    $("examples").hidden = stats.images > 0;
    const classes = model.classes.length ? ` knows ${model.classes.join(", ")}` : "";
    $("about").textContent = `Model ${model.id.slice(0, 8)}${classes}`;
    return true;
  } catch (error) {
    $("state").textContent = `Not ready: ${error.message}`;
    $("state").className = "problem";
    return false;
  }
}

async function start() {
  while (!(await refreshState())) await new Promise((done) => setTimeout(done, 1000));
  await more();
  setInterval(() => document.hidden || adding || refreshState(), STATE_MS);
}

// ---- user input

$("query").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) searchFile(file);
});
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
  });
}
document.addEventListener("drop", (event) => {
  const files = [...event.dataTransfer.files];
  if (files.length === 1) searchFile(files[0]);
  else add(files);
});
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((file) => file.type.startsWith("image/"));
  if (file) searchFile(file);
});
for (const name of ["files", "folder"]) {
  $(name).addEventListener("change", (event) => {
    add([...event.target.files].filter((file) => file.size && !file.name.startsWith(".")));
    event.target.value = "";
  });
}
$("filter").addEventListener("change", () => {
  reloadCatalogue();
  searchQuery();
});
$("marked-search").addEventListener("click", () => searchQuery(true));
$("marked-clear").addEventListener("click", () => {
  marks.clear();
  showMarks();
});
watchRegion(() => searchQuery());
$("examples").addEventListener("click", addExamples);
$("more").addEventListener("click", more);
$("viewer-close").addEventListener("click", () => $("viewer").close());
$("viewer-delete").addEventListener("click", () => deleteImage(shown));
$("viewer-search").addEventListener("click", () => {
  $("viewer").close();
  searchStored(shown);
});

start();
