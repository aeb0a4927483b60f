// The host itself: its worker processes, how they died, and the settings in force.

import { hostActions } from "./actions.js";
import { get } from "./api.js";
import { facts, h, put, section, table, tile } from "./dom.js";
import { ago, badge, bytes, count, span } from "./format.js";
import { live } from "./live.js";

/** The host's view. */
export function host(root) {
  const body = h("div", {});
  const crashes = h("div", {});
  put(root, h("h1", {}, "Host"), hostActions(), body, crashes);

  async function status() {
    const state = live.status;
    try {
      const [overview, died] = await Promise.all([get("/v1/workers"), get("/v1/crashes")]);
      put(
        body,
        h(
          "dl",
          { class: "tiles" },
          tile("Ready", overview.readiness.ready ? "yes" : "no", overview.readiness.ready ? "good" : "bad"),
          tile("Connections", count(overview.connections)),
          tile("Open calls", count(overview.open_calls)),
          tile("Hand-overs", count(overview.replacements)),
          tile("Crashes", count(overview.crashes), overview.crashes > 0 ? "warn" : ""),
          tile("Calls lost", count(overview.calls_lost), overview.calls_lost > 0 ? "warn" : ""),
        ),
        overview.readiness.reasons.map((reason) => h("p", { class: "callout bad" }, reason)),
        section(
          "Workers",
          table(
            "Worker processes",
            [["Worker"], ["Phase"], ["Process", "number"], ["Up", "number"], ["Memory", "number"], ["Retired libraries", "number"], ["Release"]],
            overview.workers.map((worker) => [
              `#${worker.worker}`,
              badge(worker.phase),
              worker.pid,
              span(worker.uptime_seconds),
              bytes(worker.memory_bytes),
              `${worker.retired_mappings} (${bytes(worker.retired_bytes)})`,
              worker.version ?? "–",
            ]),
          ),
        ),
        section(
          "This host",
          facts([
            ["Release", overview.release],
            ["Process", overview.pid],
            ["Listens on", state ? h("code", {}, state.host.listen) : null],
            ["Plugin directory", state ? h("code", {}, state.host.plugin_dir) : null],
            ["Control address", state?.host.control_listen],
            ["Probes and scrapes", state?.host.telemetry_listen],
            ["HTTP services", state?.host.http_listen],
            ["Renewals", overview.renewals],
            ["Connections cut", overview.connections_cut],
            ["Threads for blocking plugins", state?.pool ? `${state.pool.running} of ${state.pool.threads} in use, ${state.pool.stuck} past their time` : null],
            ["Retired generations", state ? `${state.retired.unloaded} unloaded, ${state.retired.draining} draining, ${state.retired.stuck} stuck (${bytes(state.retired.mapped_bytes)} mapped)` : null],
          ]),
        ),
      );
      put(
        crashes,
        section(
          "Crash reports",
          table(
            "Deaths of workers, the newest first",
            [["When"], ["What happened", "wide"], ["Plugin"], ["Open calls", "number"], [""]],
            died.crashes.map((crash) => [
              ago(crash.at),
              crash.summary,
              crash.plugin ? `${crash.plugin} ${crash.version ?? ""}` : "–",
              count(crash.open_calls),
              h("a", { href: `#/crash/${encodeURIComponent(crash.id)}`, "aria-label": `Report of ${crash.at}` }, "Report"),
            ]),
            "No worker has died.",
          ),
        ),
      );
    } catch (problem) {
      put(body, h("p", { class: "callout bad" }, problem.message));
    }
  }

  status();
  return { status };
}

/** One report of a death. */
export function crash(root, id) {
  const body = h("div", {});
  put(root, h("p", { class: "crumb" }, h("a", { href: "#/host" }, "Host")), h("h1", {}, "Crash report"), body);
  get(`/v1/crashes/${encodeURIComponent(id)}`).then(
    (report) => put(body, h("pre", { tabindex: 0, "aria-label": "The report" }, JSON.stringify(report, null, 2))),
    (problem) => put(body, h("p", { class: "callout bad" }, problem.message)),
  );
  return {};
}

/** The settings' view. */
export function settings(root) {
  const body = h("div", {});
  put(root, h("h1", {}, "Settings"), body);
  get("/v1/settings").then(
    (answer) =>
      put(
        body,
        answer.warnings.map((warning) => h("p", { class: "callout warn" }, warning)),
        answer.unusable.map((reason) => h("p", { class: "callout bad" }, reason)),
        section(
          "In force",
          table(
            "Settings in force",
            [["Setting"], ["Value"], ["From"], ["Flag"]],
            answer.settings.map((setting) => [
              h("code", {}, setting.key),
              setting.value === null ? h("span", { class: "hint" }, setting.default) : text(setting.value),
              setting.origin,
              h("code", {}, setting.flag),
            ]),
          ),
        ),
        section(
          "Of single plugins",
          Object.keys(answer.plugins ?? {}).length > 0
            ? h("pre", { tabindex: 0, "aria-label": "Settings of plugins" }, JSON.stringify(answer.plugins, null, 2))
            : h("p", { class: "empty" }, "None."),
          h("p", { class: "hint" }, "Texts in settings of plugins are hidden: they may be secrets."),
        ),
      ),
    (problem) => put(body, h("p", { class: "callout bad" }, problem.message)),
  );
  return {};
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}
