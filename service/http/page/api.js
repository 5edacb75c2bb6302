// Requests to the HTTP API. The key is kept in memory only.

let key = "";

class ServiceError extends Error {
  constructor(status, body) {
    super(body.detail ?? `the service answered with status ${status}`);
    Object.assign(this, { status, body });
  }
}

export const $ = (id) => document.getElementById(id);

export async function ask(path, options = {}) {
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

export const askJson = async (path, options) => (await ask(path, options)).json();

export function form(fields) {
  const data = new FormData();
  for (const [name, value] of fields) data.append(name, value);
  return { method: "POST", body: data };
}

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
