// Calls of the HTTP interface: JSON in, JSON out, and a problem document as an error that says the way out.

const LIMIT_MS = 70_000; // a command waits up to 60 s for its turn and the disk

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `status ${status}`);
    this.status = status;
    this.code = problem.code ?? "unknown";
  }
}

export function get(path, parameters = {}, limitMs = LIMIT_MS) {
  const query = new URLSearchParams(parameters).toString();
  return ask("GET", query ? `${path}?${query}` : path, {}, limitMs);
}

export function send(method, path, body = {}) {
  return ask(method, path, { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

export function streamPath(stream, rest = "") {
  return `/v1/streams/${encodeURIComponent(stream)}${rest}`;
}

async function ask(method, path, more = {}, limitMs = LIMIT_MS) {
  const answer = await fetch(path, { method, signal: AbortSignal.timeout(limitMs), ...more });
  if (answer.status === 401) location.assign("/login");
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, told);
  return told;
}
