// Numbers, times and states as people read them.

import { h } from "./dom.js";

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count. */
export function count(value) {
  return value === null || value === undefined ? "–" : plain.format(value);
}

/** Something per second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 10) return value.toFixed(1);
  return plain.format(value);
}

/** A time span, from seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 1e-3) return `${precise(seconds * 1e6)} µs`;
  if (seconds < 1) return `${precise(seconds * 1e3)} ms`;
  if (seconds < 120) return `${precise(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function precise(value) {
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}

/** Bytes. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : precise(value)} ${units[unit]}`;
}

/** A moment: how long ago, and exactly when one points at it. */
export function ago(utc) {
  if (!utc) return "–";
  const seconds = Math.max(0, (Date.now() - Date.parse(utc)) / 1000);
  const text = seconds < 2 ? "just now" : `${seconds < 60 ? Math.round(seconds) + " s" : span(seconds)} ago`;
  return h("time", { datetime: utc, title: utc }, text);
}

const KINDS = {
  serving: "good",
  ready: "good",
  served: "good",
  signed: "good",
  unsigned: "warn",
  modified: "bad",
  invalid: "bad",
  expired: "bad",
  loading: "wait",
  waiting: "wait",
  failed: "bad",
  refused: "bad",
  quarantined: "bad",
  disabled: "off",
  not_listening: "warn",
  other_version: "off",
  unloaded: "off",
  changed: "info",
  stopped: "info",
  skipped: "warn",
  passed: "good",
  not_reached: "off",
};

/** A state: a word with a mark, so that colour alone says nothing. */
export function badge(state) {
  return h("span", { class: `badge ${KINDS[state] ?? "off"}` }, String(state).replaceAll("_", " "));
}

/** A digest, short. */
export function digest(text) {
  return text ? h("code", { title: text }, text.slice(0, 12)) : null;
}
