// Finds the copies among all images, and shows them side by side, to be deleted.

import { $, askJson } from "./api.js";
import { difference } from "./search.js";
import { tile } from "./tiles.js";
import { deleteImage } from "./viewer.js";

const LOOK_MS = 500; // between looks at the job
let cursor = "0";

async function find() {
  $("duplicates-find").disabled = true;
  try {
    let job = await askJson("jobs/duplicates", { method: "POST" });
    while (job.state === "waiting" || job.state === "running") {
      $("duplicates-note").textContent = job.total
        ? `Comparing: ${job.done.toLocaleString()} of ${job.total.toLocaleString()} images …`
        : "Comparing …";
      await new Promise((done) => setTimeout(done, LOOK_MS));
      job = await askJson(`jobs/${job.number}`);
    }
    if (job.state !== "done") throw new Error(job.detail || `the job is ${job.state}`);
    await list();
  } catch (error) {
    $("duplicates-note").textContent = `The copies could not be found: ${error.message}`;
  }
  $("duplicates-find").disabled = false;
}

async function list() {
  cursor = "0";
  $("duplicates").replaceChildren();
  await more();
}

async function more() {
  $("duplicates-more").disabled = true;
  try {
    await append();
  } finally {
    $("duplicates-more").disabled = false;
  }
}

async function append() {
  const page = await askJson(`duplicates?${new URLSearchParams({ limit: 20, cursor })}`);
  $("duplicates").append(...page.groups.map(group));
  cursor = page.next_cursor;
  $("duplicates-more").hidden = cursor === null;
  $("duplicates-note").dataset.listed = "yes";
  $("duplicates-note").textContent = $("duplicates").children.length
    ? "Each row shows images that may be the same. Delete those that you don't want."
    : "There are no copies.";
}

function group({ size, images }) {
  const item = document.createElement("li");
  const title = document.createElement("h3");
  const members = document.createElement("ul");
  title.textContent = size > images.length ? `${images.length} of ${size} images` : `${size} images`;
  members.className = "grid";
  members.append(...images.map((image, n) => {
    const about = `${image.width} × ${image.height}, ${image.bytes.toLocaleString()} bytes`;
    const member = tile(image.id, [about, n ? difference(image) : "the first that was stored"]);
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "danger";
    remove.textContent = "Delete";
    remove.setAttribute("aria-label", `Delete ${image.id}`);
    remove.addEventListener("click", async () => {
      remove.disabled = true;
      try {
        await deleteImage(image.id);
      } catch (error) {
        $("duplicates-note").textContent = `${image.id} could not be deleted: ${error.message}`;
        remove.disabled = false;
      }
    });
    member.append(remove);
    return member;
  }));
  item.append(title, members);
  return item;
}

export function watchDuplicates() {
  $("duplicates-find").addEventListener("click", find);
  $("duplicates-more").addEventListener("click", () => more().catch((error) => {
    $("duplicates-note").textContent = `The copies could not be listed: ${error.message}`;
  }));
  document.addEventListener("image-deleted", () => {
    for (const members of document.querySelectorAll("#duplicates .grid")) {
      const count = members.children.length;
      members.parentElement.querySelector("h3").textContent = `${count} images`;
      if (count < 2) members.parentElement.remove();
    }
    if ($("duplicates-note").dataset.listed && !$("duplicates").children.length) {
      $("duplicates-note").textContent = "There are no more copies.";
    }
    if (document.activeElement === document.body && $("duplicates").children.length) {
      $("duplicates-title").focus(); // the button that had the focus is gone
    }
  });
}
