// The web page. It uses the public HTTP API and keeps its state in memory only.

import { $ } from "./api.js";
import { add, addExamples, more, reloadCatalogue, work } from "./catalogue.js";
import { watchDuplicates } from "./duplicates.js";
import { clearMarks } from "./marks.js";
import { watchRegion } from "./region.js";
import { searchFile, searchQuery } from "./search.js";
import { refreshState } from "./state.js";
import { watchViewer } from "./viewer.js";

const STATE_MS = 5000; // interval between updates of the status line

async function start() {
  while (!(await refreshState())) await new Promise((done) => setTimeout(done, 1000));
  await more();
  setInterval(() => document.hidden || work.adding || refreshState(), STATE_MS);
}

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
$("group").addEventListener("change", () => searchQuery());
$("marked-search").addEventListener("click", () => searchQuery(true));
$("marked-clear").addEventListener("click", clearMarks);
watchRegion(() => searchQuery());
watchViewer();
watchDuplicates();
$("examples").addEventListener("click", addExamples);
$("more").addEventListener("click", more);

start();
