// How many images have which values of the filter fields. A click on a value limits the search.

import { $ } from "./api.js";

// Shows the counts. ``choose`` is called with the condition of a value, as people write it.
export function showFacets(facets, choose) {
  const fields = Object.entries(facets ?? {}).filter(([, values]) => values.length > 1);
  $("facets").hidden = !fields.length;
  $("facets").replaceChildren(...fields.flatMap(([field, values]) => {
    const term = document.createElement("dt");
    const list = document.createElement("dd");
    term.textContent = field;
    list.className = "actions";
    list.append(...values.slice(0, 12).map(({ value, count }) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${value} (${count.toLocaleString()})`;
      button.addEventListener("click", () => choose(field, value));
      return button;
    }));
    return [term, list];
  }));
}
