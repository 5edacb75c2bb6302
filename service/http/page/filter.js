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

// Returns what people wrote with a further condition: that a field equals a value.
export function withCondition(text, field, value) {
  const written = text.trim();
  const condition = { [field]: value };
  const simple = (text) => /^[^<>=,\\"]+$/.test(text) && text.trim() === text;
  const plain = typeof value !== "string" || (simple(value) && valueOf(value) === value);
  if (plain && simple(field) && !written.startsWith("{")) {
    return [...(written ? [written] : []), `${field} = ${value}`].join(", ");
  }
  return JSON.stringify(written ? { and: [JSON.parse(filterOf(written)), condition] } : condition);
}
