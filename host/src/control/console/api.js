// Requests to the host, and what it says where it refuses one.

/** The host has refused a request, or could not be asked. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Asks, and gives the answer's JSON. */
export async function ask(method, path, body) {
  const options = { method, credentials: "same-origin", headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Problem(0, "The host cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const problem = new Problem(response.status, answer.detail ?? `The host answered ${response.status}.`);
  if (response.status === 401 && path !== "/v1/session") {
    document.dispatchEvent(new CustomEvent("signed-out"));
  }
  throw problem;
}

/** Looks. */
export function get(path) {
  return ask("GET", path);
}

/** Acts. */
export function post(path, body) {
  return ask("POST", path, body);
}

/** The path of a plugin, with what is wanted of it. */
export function pluginPath(name, what) {
  return `/v1/plugins/${encodeURIComponent(name)}${what ? `/${what}` : ""}`;
}
