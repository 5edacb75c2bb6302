// What people write to choose images by their metadata, as a filter of the API.

const CONDITION = /^\s*((?:\\.|[^<>=!\\])+?)\s*(<=|>=|<|>|=)\s*([^\s<>=].*?)\s*$/;
const OPERATORS = { "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=": "eq" };

// Returns the filter as JSON text, "" for no text. Throws an Error that says how to write it.
export function filterOf(text) {
  if (!text.trim()) return "";
  if (text.trim().startsWith("{")) return text;
  const parts = text.split(",").map((part) => {
    const found = CONDITION.exec(part);
    if (!found) throw new Error(`“${part.trim()}” is not a condition: write brand = acme, price < 20`);
    const [, field, operator, value] = found;
    return { [field]: { [OPERATORS[operator]]: valueOf(value) } };
  });
  return JSON.stringify({ and: parts });
}

function valueOf(text) {
  if (text === "true" || text === "false") return text === "true";
  const number = Number(text);
  return Number.isFinite(number) ? number : text.replace(/^"(.*)"$/, "$1");
}
