// All plugins at one look: what is wrong first, then the numbers, then each of them.

import { rescanButton } from "./actions.js";
import { h, put, row, section, tile } from "./dom.js";
import { ago, badge, count, rate, span } from "./format.js";
import { live, numbers, points, totals } from "./live.js";
import { sparkline } from "./sparkline.js";

const COLUMNS = [
  ["Plugin"],
  ["State"],
  ["Calls / s", "number"],
  ["Latency", "number"],
  ["Failed", "number"],
  ["Routes", "number"],
  ["Since"],
];

/** Closed routes that are told of at first look. */
const SHOWN_ROUTES = 8;

/** How a plugin's page is found. */
export function pluginLink(name, text = name) {
  return h("a", { href: `#/plugin/${encodeURIComponent(name)}`, "data-key": `link ${name}` }, text);
}

/** The view. */
export function overview(root) {
  const troubles = h("div", {});
  const tiles = h("dl", { class: "tiles" });
  const filter = h("input", {
    type: "search",
    id: "filter",
    placeholder: "Filter by name",
    "aria-label": "Filter plugins by name",
    oninput: rows,
  });
  const only = h("input", { type: "checkbox", id: "only-bad", onchange: rows });
  const body = h("tbody", {});
  const summary = h("p", { class: "hint", role: "status" });
  const liveRows = new Map();

  put(
    root,
    h("h1", {}, "Plugins"),
    troubles,
    tiles,
    h(
      "div",
      { class: "toolbar" },
      filter,
      h("label", { class: "option", for: "only-bad" }, only, "Only with problems"),
      summary,
      rescanButton(),
    ),
    h(
      "div",
      { class: "table", role: "region", "aria-label": "Plugins", tabindex: 0 },
      h(
        "table",
        { id: "plugins" },
        h("caption", { class: "unseen" }, "Every place of the plugin directory"),
        h("thead", {}, h("tr", {}, COLUMNS.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
        body,
      ),
    ),
  );

  function rows() {
    const status = live.status;
    if (!status) return;
    const wanted = filter.value.trim().toLowerCase();
    const shown = status.plugins.filter(
      (plugin) =>
        (plugin.name ?? plugin.place).toLowerCase().includes(wanted) && (!only.checked || hasProblem(plugin)),
    );
    liveRows.clear();
    const drawn = shown.map((plugin) => {
      const cells = { calls: h("span", {}), latency: h("span", {}), failed: h("span", {}), routes: h("span", {}) };
      liveRows.set(plugin.place, { plugin, cells });
      return row(COLUMNS, [
        [
          plugin.name ? pluginLink(plugin.name) : h("code", { title: plugin.place }, plugin.place.split("/").at(-1)),
          " ",
          h("span", { class: "version" }, plugin.version ?? ""),
          plugin.last_error ? h("p", { class: "error clamp", title: plugin.last_error }, plugin.last_error) : null,
        ],
        badge(plugin.state),
        cells.calls,
        cells.latency,
        cells.failed,
        cells.routes,
        ago(plugin.since),
      ]);
    });
    if (drawn.length === 0) {
      const text =
        status.plugins.length === 0
          ? `No plugin yet: put one into ${status.host.plugin_dir}, in a directory of its own.`
          : "No plugin is like that.";
      put(body, h("tr", {}, h("td", { colspan: COLUMNS.length, class: "empty" }, status.unknown ?? text)));
    } else put(body, drawn);
    summary.textContent = `${shown.length} of ${status.plugins.length}`;
    pulse();
  }

  function status() {
    if (!live.status) return;
    put(troubles, trouble(live.status));
    rows();
  }

  function pulse() {
    for (const [place, { plugin, cells }] of liveRows) {
      const minute = points(place);
      const last = minute.at(-1);
      const name = plugin.name ?? place;
      put(
        cells.calls,
        sparkline(minute.map((point) => point.calls), `Calls to ${name} in the last minute, now ${rate(last?.calls)} a second`, "calls"),
        h("span", { class: "value" }, rate(last?.calls)),
      );
      const duration = numbers(place)?.duration ?? plugin.duration;
      const mean = minute.findLast((point) => point.latency !== null)?.latency;
      put(
        cells.latency,
        sparkline(minute.map((point) => point.latency), `Mean latency of ${name} in the last minute, now ${span(mean)}`, "latency"),
        h("span", { class: "value", title: duration ? `p50 ${span(duration.p50_seconds)}, p99 ${span(duration.p99_seconds)}` : null }, span(mean ?? duration?.p50_seconds)),
      );
      const failed = numbers(place)?.failed ?? failedOf(plugin.calls);
      cells.failed.className = failed > 0 ? "error" : "";
      cells.failed.textContent = count(failed);
      cells.routes.textContent = count(numbers(place)?.configurations ?? plugin.configurations);
    }
    const status = live.status;
    if (!status) return;
    const now = totals();
    const worker = live.pulse ?? status.host;
    put(
      tiles,
      tile("Calls / s", rate(now.calls)),
      tile("Failing / s", rate(now.failed), now.failed > 0 ? "bad" : ""),
      tile("Connections", count(worker.connections)),
      tile("Open calls", count(worker.open_calls)),
      tile("Closed routes", count(status.closed_routes.length + status.more_closed_routes), status.closed_routes.length > 0 ? "bad" : ""),
      tile("Worker crashes", count(status.host.crashes), status.host.crashes > 0 ? "warn" : ""),
    );
  }

  status();
  return { status, pulse };
}

/** All failed calls of a plugin. */
export function failedOf(calls) {
  return calls.errors + calls.panics + calls.missed_deadlines + calls.misuses + calls.without_thread + calls.without_room;
}

function hasProblem(plugin) {
  return plugin.state !== "serving" || plugin.last_error || failedOf(plugin.calls) > 0;
}

/** Why routes may answer 503, in the order in which it is to be looked at. */
function trouble(status) {
  const found = [];
  const item = (...children) => found.push(h("li", {}, children));
  if (status.unknown) item(h("strong", {}, "No worker answers: "), status.unknown);
  for (const reason of status.readiness.reasons) item(h("strong", {}, "Not ready: "), reason);
  for (const closed of status.closed_routes.slice(0, SHOWN_ROUTES)) {
    item(h("strong", {}, "Route fails closed (503): "), h("code", {}, closed.route), " ", closed.reason);
  }
  const more = status.closed_routes.length + status.more_closed_routes - SHOWN_ROUTES;
  if (more > 0) item(h("a", { href: "#/routes?state=refused" }, `${count(more)} more routes fail closed`));
  for (const plugin of status.plugins) {
    if (!plugin.last_error || !plugin.name) continue;
    const instead = plugin.serving ? `; ${plugin.serving} serves on` : "; its routes fail closed";
    item(h("strong", {}, "Not loaded: "), pluginLink(plugin.name), ` ${plugin.last_tried ?? ""}${instead}`);
  }
  for (const build of status.quarantined) {
    const instead = build.serving_instead ? `${build.serving_instead} serves instead` : "its routes fail closed";
    item(h("strong", {}, "In quarantine: "), pluginLink(build.name), ` ${build.version}; ${instead}`);
  }
  for (const plugin of status.disabled) {
    item(h("strong", {}, "Disabled: "), pluginLink(plugin.name), ` by ${plugin.by}, `, ago(plugin.since));
  }
  for (const problem of status.problems) {
    item(h("strong", {}, "Not a plugin: "), problem.problem);
  }
  if (found.length === 0) return null;
  return h("div", { class: "troubles" }, section("Needs attention", h("ul", {}, found)));
}
