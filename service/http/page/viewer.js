// Shows one image large, with what is known of it.

import { $, ask, askJson } from "./api.js";
import { searchCopies, searchStored } from "./search.js";
import { refreshState, service } from "./state.js";
import { fill, forget } from "./tiles.js";

let shown = null; // id of the image in the viewer

async function view(id) {
  shown = id;
  $("viewer-title").textContent = id;
  $("viewer-image").removeAttribute("src");
  $("viewer-image").alt = `The image ${id}`;
  $("viewer-facts").replaceChildren();
  $("viewer-copies").hidden = !service.copies;
  $("viewer").showModal();
  try {
    const about = await askJson(`images/${encodeURIComponent(id)}`);
    const tags = about.tags.map(({ name, probability }) => `${name} ${Math.round(100 * probability)} %`);
    const facts = {
      size: `${about.width} × ${about.height} pixels, ${about.bytes.toLocaleString()} bytes`,
      stored: new Date(about.created).toLocaleString(),
      ...(tags.length && { "looks like": tags.join(", ") }),
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

// Deletes an image; an image that is gone already counts as deleted. Throws an Error.
export async function deleteImage(id) {
  try {
    await ask(`images/${encodeURIComponent(id)}`, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error;
  }
  forget(id);
  refreshState();
}

export function watchViewer() {
  document.addEventListener("open-image", (event) => view(event.detail));
  $("viewer-close").addEventListener("click", () => $("viewer").close());
  $("viewer-delete").addEventListener("click", async () => {
    try {
      await deleteImage(shown);
      $("viewer").close();
    } catch (error) {
      $("viewer-image").alt = `The image could not be deleted: ${error.message}`;
    }
  });
  $("viewer-search").addEventListener("click", () => {
    $("viewer").close();
    searchStored(shown);
  });
  $("viewer-copies").addEventListener("click", () => {
    $("viewer").close();
    searchCopies(shown);
  });
}
