// What the host tells by itself: its status when that changes, numbers once a second. Kept here for all
// views; a minute of numbers is enough for a sparkline.

import { get } from "./api.js";

const KEPT = 60;
const AGAIN_AFTER = 2000;

const listeners = new Set();
const series = new Map();
let source = null;
let again = null;

export const live = { status: null, pulse: null, connected: false };

/** Calls back with `status`, `pulse` or `connection`, until the function that it gives is called. */
export function listen(callback) {
  listeners.add(callback);
  return () => listeners.delete(callback);
}

function tell(kind) {
  for (const callback of listeners) callback(kind);
}

/** Begins to listen to the host. */
export function start() {
  stop();
  source = new EventSource("/v1/events");
  source.addEventListener("open", () => connection(true));
  source.addEventListener("status", (event) => {
    live.status = JSON.parse(event.data);
    connection(true);
    tell("status");
  });
  source.addEventListener("pulse", (event) => {
    live.pulse = JSON.parse(event.data);
    remember(live.pulse);
    tell("pulse");
  });
  source.addEventListener("error", () => {
    connection(false);
    // After an answer that is no stream the browser does not try again by itself.
    if (source?.readyState === EventSource.CLOSED) again = setTimeout(resume, AGAIN_AFTER);
  });
}

async function resume() {
  try {
    await get("/v1/session");
  } catch (problem) {
    if (problem.status === 401) {
      document.dispatchEvent(new CustomEvent("signed-out"));
      return;
    }
  }
  start();
}

/** Listens no more. */
export function stop() {
  clearTimeout(again);
  source?.close();
  source = null;
}

function connection(connected) {
  if (live.connected === connected) return;
  live.connected = connected;
  tell("connection");
}

function remember(pulse) {
  const at = Date.parse(pulse.at) / 1000;
  for (const place of series.keys()) if (!(place in pulse.calls)) series.delete(place);
  for (const [place, numbers] of Object.entries(pulse.calls)) {
    const known = series.get(place) ?? { last: null, points: [] };
    const before = known.last;
    // Another generation, or another worker, begins at zero.
    const goesOn = before && numbers.calls >= before.calls && at > before.at;
    if (goesOn) known.points.push(difference(before, numbers, at));
    else if (before) known.points.push({ calls: null, failed: null, latency: null });
    if (known.points.length > KEPT) known.points.shift();
    known.last = { at, ...numbers };
    series.set(place, known);
  }
}

function difference(before, now, at) {
  const seconds = at - before.at;
  const ended = (now.duration?.count ?? 0) - (before.duration?.count ?? 0);
  const spent = (now.duration?.sum_seconds ?? 0) - (before.duration?.sum_seconds ?? 0);
  return {
    calls: (now.calls - before.calls) / seconds,
    failed: Math.max(0, now.failed - before.failed) / seconds,
    latency: ended > 0 && spent >= 0 ? spent / ended : null,
  };
}

/** The last minute of a place: per second its calls, failed ones, and their mean time in seconds. */
export function points(place) {
  return series.get(place)?.points ?? [];
}

/** What is known last of a place, beside what the status said. */
export function numbers(place) {
  return live.pulse?.calls[place] ?? null;
}

/** The last second, summed over all places. */
export function totals() {
  const sum = { calls: 0, failed: 0 };
  for (const { points } of series.values()) {
    const last = points.at(-1);
    sum.calls += last?.calls ?? 0;
    sum.failed += last?.failed ?? 0;
  }
  return sum;
}
