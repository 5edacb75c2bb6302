// The web page. It uses the public HTTP API and keeps its state, including the key, in memory only.

const BATCH = 20; // images sent in one request
const PAGE = 60; // images added to the catalogue at a time
const STATE_MS = 5000; // interval between updates of the status line

const $ = (id) => document.getElementById(id);
let key = "";
let cursor = "0";
let shown = null; // id of the image in the viewer
let adding = false;

class ServiceError extends Error {
  constructor(status, body) {
    super(body.detail ?? `the service answered with status ${status}`);
    Object.assign(this, { status, body });
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const reply = await fetch(path, { ...options, headers }).catch(() => {
    throw new Error("the service cannot be reached");
  });
  if (reply.status === 401) {
    await askForKey();
    return ask(path, options);
  }
  if (!reply.ok) throw new ServiceError(reply.status, await reply.json().catch(() => ({})));
  return reply;
}

const askJson = async (path, options) => (await ask(path, options)).json();

let asking = null; // all requests that wait for a key share one dialog
function askForKey() {
  asking ??= new Promise((resolve) => {
    $("key").value = "";
    $("asking").addEventListener("close", () => {
      key = $("key").value;
      asking = null;
      resolve();
    }, { once: true });
    $("asking").showModal();
  });
  return asking;
}

function form(fields) {
  const data = new FormData();
  for (const [name, value] of fields) data.append(name, value);
  return { method: "POST", body: data };
}

// ---- thumbnails: fetched when they come into view, by script, because <img> cannot send a key

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((entry) => entry.isIntersecting)) {
    seen.unobserve(entry.target);
    fill(entry.target, `images/${encodeURIComponent(entry.target.dataset.id)}/thumbnail`);
  }
}, { rootMargin: "300px" });

async function fill(image, path) {
  try {
    const url = URL.createObjectURL(await (await ask(path)).blob());
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
  seen.observe(image);
  return item;
}

// ---- search

async function search(options, label) {
  $("results").replaceChildren();
  $("results").setAttribute("aria-busy", "true");
  $("results-note").textContent = "Searching …";
  try {
    const found = await askJson("search", options);
    const hits = found.results;
    $("results").replaceChildren(...hits.map(tile));
    const count = hits.length === 1 ? "1 image" : `${hits.length} images`;
    $("results-note").textContent = hits.length
      ? `${count} nearest to ${label}, found in ${Math.round(found.took_ms)} ms.`
      : "No other image is stored.";
    $("results-title").focus();
  } catch (error) {
    $("results-note").textContent = `The search failed: ${error.message}`;
  } finally {
    $("results").removeAttribute("aria-busy");
  }
}

async function searchFile(file) {
  const preview = $("query-preview");
  preview.src = URL.createObjectURL(file);
  preview.onload = preview.onerror = () => URL.revokeObjectURL(preview.src);
  preview.hidden = false;
  $("query-name").textContent = file.name;
  const fields = [["image", file], ["k", $("k").value], ["exclude_same", true]];
  await search(form(fields), file.name || "the image");
}

async function searchStored(id) {
  $("query-preview").hidden = false;
  fill($("query-preview"), `images/${encodeURIComponent(id)}/thumbnail`);
  $("query-name").textContent = id;
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ id, k: Number($("k").value), exclude_same: true });
  await search({ method: "POST", headers, body }, id);
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

async function more() {
  $("more").disabled = true;
  try {
    const page = await askJson(`images?limit=${PAGE}&cursor=${cursor}`);
    $("catalogue").append(...page.images.map(tile));
    cursor = page.next_cursor;
    $("more").hidden = cursor === null;
    const empty = !$("catalogue").children.length;
    $("catalogue-note").textContent = empty
      ? "No images are stored yet. Add your own, or load the examples to try the search."
      : "";
  } catch (error) {
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
$("examples").addEventListener("click", addExamples);
$("more").addEventListener("click", more);
$("viewer-close").addEventListener("click", () => $("viewer").close());
$("viewer-delete").addEventListener("click", () => deleteImage(shown));
$("viewer-search").addEventListener("click", () => {
  $("viewer").close();
  searchStored(shown);
});

start();
