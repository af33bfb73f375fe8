// The aggregator's HTTP interface. Everything that goes wrong becomes an ApiError in words.

const TIMEOUT_MS = 30_000;
export const REFRESH_TIMEOUT_MS = 5000; // of a page that follows now: a hung server must be noticed
const MAX_NODES = 20_000;
const MORE_NODES = 200_000;

export class ApiError extends Error {
  constructor(message, remedy = "") {
    super(message);
    this.remedy = remedy;
  }
}

// The server's paths, below wherever a proxy has put the page.
export const below = (path) => new URL(`.${path}`, document.baseURI).href;

let clockOffsetMs = 0;

// Ages and "now" go by the server's clock: this machine's may be wrong.
export const serverNow = () => Date.now() + clockOffsetMs;

function noteServerTime(response) {
  const offset = Date.parse(response.headers.get("Date")) - Date.now();
  if (Number.isNaN(offset)) return;
  clockOffsetMs = Math.abs(offset) > 2000 ? offset : 0; // the header counts whole seconds
}

// signal: aborts the request; an abort by the caller is rethrown as it is (name "AbortError").
// options: method, headers and body of fetch, and timeoutMs.
async function call(path, params, signal, { timeoutMs = TIMEOUT_MS, ...options } = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== "" && v != null));
  const url = below(query.size ? `${path}?${query}` : path);
  const timeout = AbortSignal.timeout(timeoutMs);
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
  let response;
  let body;
  try {
    response = await fetch(url, { signal: either, cache: "no-store", ...options });
    body = await response.text();
    noteServerTime(response);
  } catch (error) {
    if (signal?.aborted) throw error;
    if (timeout.aborted) throw new ApiError(`No answer for ${Math.round(timeoutMs / 1000)} s.`);
    throw new ApiError("The server can't be reached.", "Is it still running?");
  }
  let json;
  try {
    json = JSON.parse(body);
  } catch {
    throw new ApiError(`The server answered ${response.status} without readable content.`);
  }
  if (!response.ok) {
    const reason = json?.error;
    throw new ApiError(reason?.message ?? `The server answered ${response.status}.`, reason?.remedy);
  }
  return json;
}

// zoom: number of the path whose frames come first, 0 for none; more: many more frames than usual
export const fetchFlamegraph = ({ from, until, query, zoom, more }, signal, timeoutMs) => {
  const max_nodes = more ? MORE_NODES : MAX_NODES;
  const path = zoom ? zoom.toString(16) : "";
  const params = { from, until, query, zoom: path, max_nodes, format: "columnar" };
  return call("/api/v1/flamegraph", params, signal, { timeoutMs });
};

export const fetchTimeline = ({ from, until, query, points }, signal, timeoutMs) =>
  call("/api/v1/timeline", { from, until, query, points }, signal, { timeoutMs });

// Learns the server's time; without an answer this machine's is taken.
export const learnTime = () => call("/healthz", {}, null, { timeoutMs: REFRESH_TIMEOUT_MS }).catch(() => {});

export const fetchLabels = async () => (await call("/api/v1/labels", {})).labels;

export const fetchNodes = async (signal, timeoutMs) =>
  (await call("/api/v1/nodes", {}, signal, { timeoutMs })).nodes;

// → {events, older}, newest first; `olderThan` is `older` of the page before
export const fetchEvents = (name, { olderThan = "", limit }, signal) =>
  call(`/api/v1/nodes/${encodeURIComponent(name)}/events`, { older_than: olderThan, limit }, signal);

const profilesOf = (name) => `/api/v1/nodes/${encodeURIComponent(name)}/profiles`;
const asOperator = (token) => ({ Authorization: `Bearer ${token}` });

// Profiles on demand, the newest first.
export const fetchProfiles = async (name) => (await call(profilesOf(name), {})).profiles;

// asked: {rate_hz, seconds}; token: an operator's
export const askProfile = (name, asked, token) =>
  call(profilesOf(name), {}, null, {
    method: "POST",
    headers: asOperator(token),
    body: JSON.stringify(asked),
  });

export const endProfile = (url, token) =>
  call(url, {}, null, { method: "DELETE", headers: asOperator(token) });

export function exportUrl({ from, until, query }, format) {
  const params = new URLSearchParams({ from, until, format });
  if (query) params.set("query", query);
  return below(`/api/v1/flamegraph?${params}`);
}
