// Searches, and shows the hits.

import { $, askJson, form } from "./api.js";
import { showFacets } from "./facets.js";
import { filterOf, withCondition } from "./filter.js";
import { clearMarks, marker, marks } from "./marks.js";
import { region, setRegion } from "./region.js";
import { service } from "./state.js";
import { fill, tile } from "./tiles.js";

let query = null; // the file, or the id of the image, that was searched for last
const uncountable = new Set(); // fields that have too many different values
let searches = 0; // a reply to an earlier search is dropped

// Shows the hits of a request. ``tell`` returns the line above them, ``draw`` the tile of a hit.
async function show(path, options, tell, draw, hitsOf) {
  const mine = ++searches;
  $("results").replaceChildren();
  $("results").setAttribute("aria-busy", "true");
  $("results-note").textContent = "Searching …";
  try {
    const found = await counting(path, options);
    if (mine !== searches) return;
    const hits = hitsOf(found);
    $("results").replaceChildren(...hits.map(draw));
    $("results-note").textContent = tell(hits, found);
    showFacets(found.facets, choose);
    $("results-title").focus();
  } catch (error) {
    if (mine === searches) $("results-note").textContent = `The search failed: ${error.message}`;
  } finally {
    if (mine === searches) $("results").removeAttribute("aria-busy");
  }
}

// Asks with facets; a field with too many values is not counted again.
async function counting(path, { facets = [], make }) {
  const wanted = facets.filter((name) => !uncountable.has(name));
  try {
    return await askJson(path, make(wanted));
  } catch (error) {
    if (!wanted.length || !error.message.startsWith("facets:")) throw error;
    const named = wanted.filter((name) => error.message.startsWith(`facets: ${name} has`));
    for (const name of named.length ? named : wanted) uncountable.add(name);
    return counting(path, { facets: wanted, make });
  }
}

const counted = (hits) => hits.length === 1 ? "1 image" : `${hits.length} images`;

async function search(options, label) {
  const tell = (hits, found) => hits.length
    ? `${counted(hits)} nearest to ${label}, found in ${Math.round(found.took_ms)} ms.`
    : $("filter").value.trim() ? "No other image matches." : "No other image is stored.";
  const draw = (hit) => {
    const lines = [`score ${hit.score.toFixed(3)}`];
    if (hit.group !== undefined) lines.push(`${$("group").value.trim()}: ${hit.group}`);
    const item = tile(hit.id, lines);
    item.append(marker(hit.id, true), marker(hit.id, false));
    return item;
  };
  await show("search", options, tell, draw, (found) => found.results);
}

// Searches for the query again, with the options that the page shows.
export async function searchQuery(examples = false) {
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
  const group = $("group").value.trim();
  if (group) fields.push(["group_by", group]);
  const facets = service.fields.slice(0, 8);
  const label = stored ? query : query.name || "the image";
  const withFacets = (named) => named.map((name) => ["facets", name]);
  if (examples) {
    fields.push(["positive", query]);
    for (const [id, like] of marks) fields.push([like ? "positive" : "negative", id]);
    const make = (named) => form([...fields, ...withFacets(named)]);
    await search({ facets, make }, `${label} and ${marks.size} examples`);
    return;
  }
  const part = region();
  const about = part ? `a part of ${label}` : label;
  if (!stored) {
    if (part) fields.push(["region", JSON.stringify(part)]);
    const make = (named) => form([["image", query], ...fields, ...withFacets(named)]);
    await search({ facets, make }, about);
    return;
  }
  const options = Object.fromEntries(fields);
  const make = (named) => json({
    ...options, id: query, k: Number(options.k), facets: named, ...(part && { region: part }),
    ...(options.filter && { filter: parsed(options.filter) }),
  });
  await search({ facets, make }, about);
}

// Shows the copies of a stored image.
export async function searchCopies(id) {
  const tell = (hits, found) => found.plain
    ? `${id} is too plain to be compared.`
    : hits.length ? `${counted(hits)} that may be copies of ${id}.` : `No copy of ${id} is stored.`;
  const draw = (copy) => tile(copy.id, [difference(copy)]);
  await show("search/copies", { make: () => json({ id }) }, tell, draw, (found) => found.copies);
}

// Says how a copy differs from another image.
export function difference({ distance, mirrored, turned }) {
  const turns = [mirrored && "mirrored", turned && `turned by ${turned}°`].filter(Boolean);
  return [`${distance} of 256 bits differ`, ...turns].join(", ");
}

const json = (value) => ({
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value),
});

function choose(field, value) {
  try {
    $("filter").value = withCondition($("filter").value, field, value);
  } catch (error) {
    $("results-note").textContent = error.message;
    return;
  }
  $("filter").dispatchEvent(new Event("change"));
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
  clearMarks();
  setRegion();
  for (const id of ["query-preview", "region-image"]) $(id).src = url;
  $("query-preview").hidden = $("region").hidden = false;
}

export async function searchFile(file) {
  const url = URL.createObjectURL(file);
  begin(file, url);
  $("region-image").onload = $("region-image").onerror = () => URL.revokeObjectURL(url);
  $("query-name").textContent = file.name;
  await searchQuery();
}

export async function searchStored(id) {
  begin(id, "");
  for (const image of ["query-preview", "region-image"]) {
    fill($(image), `images/${encodeURIComponent(id)}/thumbnail`);
  }
  $("query-name").textContent = id;
  await searchQuery();
}
