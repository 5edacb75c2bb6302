// Marks on hits: more like this, less like this.

import { $ } from "./api.js";

export const marks = new Map(); // ids of examples: true for more like this, false for less

export function marker(id, like) {
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

export function clearMarks() {
  marks.clear();
  showMarks();
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
