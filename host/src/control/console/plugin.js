// One plugin: how it goes, what can be done about it, what it has been, and who uses it.

import { pluginActions } from "./actions.js";
import { ask, get, pluginPath } from "./api.js";
import { say } from "./dialog.js";
import { facts, field, h, put, section, select, table, tile } from "./dom.js";
import { ago, badge, count, digest, rate, span } from "./format.js";
import { live, numbers, points } from "./live.js";
import { failedOf } from "./overview.js";
import { chainTable, tokenTable } from "./routes.js";
import { sparkline } from "./sparkline.js";

const LEVELS = ["", "error", "warn", "info", "debug", "trace", "off"];

/** The view. */
export function plugin(root, name) {
  const head = h("div", {});
  const generations = h("div", {});
  const history = h("div", {});
  const routes = h("div", {});
  const about = h("div", {});
  const log = h("div", {});
  const cells = new Map();
  let isHere = true;

  put(
    root,
    h("p", { class: "crumb" }, h("a", { href: "#/" }, "Plugins")),
    h("h1", {}, name),
    head,
    generations,
    history,
    routes,
    about,
    log,
  );

  function mine() {
    return (live.status?.plugins ?? []).filter((plugin) => plugin.name === name);
  }

  function status() {
    const state = live.status;
    if (!state) return;
    const plugins = mine();
    if (plugins.length === 0) {
      put(head, h("p", { class: "empty" }, state.unknown ?? "No place of the plugin directory has ever given such a plugin."));
      return;
    }
    const isSetAside = state.quarantined.some((build) => build.name === name);
    cells.clear();
    put(
      generations,
      plugins.map((plugin) => version(plugin, plugins.length > 1, isSetAside)),
      draining(state),
      services(plugins),
    );
    const tries = plugins.flatMap((plugin) => plugin.history);
    tries.sort((one, other) => (one.at < other.at ? 1 : -1));
    put(
      history,
      section(
        "Upgrade history",
        table(
          "Tries to load something, the newest first",
          [["When"], ["Version"], ["Outcome"], ["Digest"], ["Reason", "wide"]],
          tries.map((entry) => [ago(entry.at), entry.version, badge(entry.outcome), digest(entry.digest), entry.error ?? "–"]),
          "Nothing was tried yet.",
        ),
      ),
    );
    pulse();
    more();
  }

  function version(plugin, several, isSetAside) {
    const liveCells = h("div", {});
    cells.set(plugin.place, { plugin, liveCells });
    const failure = plugin.last_failure;
    return h(
      "section",
      { class: "card" },
      h("h2", {}, plugin.version ? `Version ${plugin.version}` : plugin.place, " ", badge(plugin.state)),
      pluginActions(plugin, several, isSetAside),
      liveCells,
      plugin.last_error
        ? h("div", { class: "callout bad" }, h("strong", {}, `The last try failed (${plugin.last_tried}): `), h("span", { class: "text" }, plugin.last_error))
        : null,
      failure
        ? h(
            "div",
            { class: "callout warn" },
            h("strong", {}, "Last failed call: "),
            h("span", { class: "text" }, failure.reason),
            h("p", { class: "hint" }, ago(failure.at), " on ", h("code", {}, failure.route), `, request ${failure.request_id}`),
          )
        : null,
      plugin.found_blocking
        ? h(
            "div",
            { class: "callout warn" },
            h("strong", {}, "Runs on the pool: "),
            `it held an event loop up for ${plugin.found_blocking.milliseconds} ms (${plugin.found_blocking.how}), `,
            ago(plugin.found_blocking.since),
          )
        : null,
      facts([
        ["Serves since", plugin.since ? ago(plugin.since) : null],
        ["Generation", plugin.generation],
        ["Roll back to", plugin.previous],
        ["Place", h("code", {}, plugin.place)],
        ["Library", plugin.library ? h("code", {}, plugin.library) : null],
        ["Digest", digest(plugin.digest)],
        ["Signature", signature(plugin.signature)],
        ["ABI", plugin.build ? `${plugin.build.abi} (plugin-abi ${plugin.build.plugin_abi})` : null],
        ["Built by", plugin.build ? `${plugin.build.compiler} for ${plugin.build.target}` : null],
        ["Calls run", plugin.execution],
        ["Where it fails", plugin.failure_policy],
        ["Held a loop up", plugin.stalls > 0 ? `${plugin.stalls} times` : null],
      ]),
    );
  }

  function services(plugins) {
    const of = plugins.flatMap((plugin) => plugin.http_routes);
    if (of.length === 0) return null;
    const listen = live.status.host.http_listen;
    return section(
      `HTTP services (${count(of.length)})`,
      listen
        ? h("p", { class: "hint" }, "Served on ", h("code", {}, listen))
        : h("p", { class: "callout warn" }, "The host has no listener for them: nobody can ask. Start it with --http-listen."),
      table(
        "Routes of its HTTP services",
        [["Route"], ["Method"], ["Label"], ["State"], ["Version"], ["Generation", "number"], ["Reason", "wide"]],
        of.map((it) => [
          h("code", {}, it.route),
          it.method ?? "any",
          it.label || "–",
          badge(it.state),
          it.version,
          it.generation ?? "–",
          it.reason ?? "–",
        ]),
      ),
    );
  }

  function draining(state) {
    const old = state.draining.filter((generation) => generation.name === name);
    if (old.length === 0) return null;
    return section(
      "Draining",
      table(
        "Generations that calls still use",
        [["Version"], ["Generation", "number"], ["Serves no new call"]],
        old.map((generation) => [generation.version, generation.generation, ago(generation.since)]),
      ),
    );
  }

  function pulse() {
    for (const { plugin, liveCells } of cells.values()) {
      if (plugin.state !== "serving") continue;
      const minute = points(plugin.place);
      const now = numbers(plugin.place);
      const calls = plugin.calls;
      const duration = now?.duration ?? plugin.duration;
      const last = minute.at(-1);
      const mean = minute.findLast((point) => point.latency !== null)?.latency;
      const failed = now?.failed ?? failedOf(calls);
      const kinds = [
        ["errors", calls.errors],
        ["panics", calls.panics],
        ["missed deadlines", calls.missed_deadlines],
        ["misuses", calls.misuses],
        ["without thread", calls.without_thread],
        ["without room", calls.without_room],
      ].filter(([, number]) => number > 0);
      put(
        liveCells,
        h(
          "dl",
          { class: "tiles" },
          tile("Calls", count(now?.calls ?? calls.calls)),
          tile("Calls / s", rate(last?.calls)),
          tile("Failed", count(failed), failed > 0 ? "bad" : ""),
          tile("Mean latency", span(mean)),
          tile("p50", span(duration?.p50_seconds)),
          tile("p99", span(duration?.p99_seconds)),
          tile("Configurations", count(now?.configurations ?? plugin.configurations)),
        ),
        kinds.length > 0 ? h("p", { class: "hint" }, "When last looked at: ", kinds.map(([kind, number]) => `${count(number)} ${kind}`).join(", ")) : null,
        h(
          "div",
          { class: "charts" },
          chart("Calls a second, the last minute", minute.map((point) => point.calls), "calls", rate),
          chart("Failed a second", minute.map((point) => point.failed), "failed", rate),
          chart("Mean latency", minute.map((point) => point.latency), "latency", span),
        ),
      );
    }
  }

  /** What the status does not tell: asked for when it changes. */
  async function more() {
    const query = `plugin=${encodeURIComponent(name)}&limit=100`;
    const asked = await Promise.allSettled([
      get(`/v1/chains?${query}`),
      get(`/v1/tokens?${query}`),
      get(pluginPath(name, "about")),
      get(`/v1/log/lines?plugin=${encodeURIComponent(name)}&tail=20`),
      get("/v1/log"),
    ]);
    if (!isHere) return;
    const [chains, tokens, abouts, lines, levels] = asked.map((answer) => answer.value);
    put(
      routes,
      chains ? section(`Routes (${count(chains.total)})`, chainTable(chains.chains)) : null,
      tokens ? section(`Live configurations (${count(tokens.total)})`, tokenTable(tokens.tokens)) : null,
    );
    put(about, (abouts?.plugins ?? []).map((it) => said(it, (abouts?.plugins ?? []).length > 1)));
    put(
      log,
      section(
        "Log",
        levels ? levelForm(levels) : null,
        h("pre", { class: "log", tabindex: 0, "aria-label": "Last lines about it" }, (lines?.lines ?? []).map((line) => line.line).join("\n") || "No lines."),
        h("p", {}, h("a", { href: `#/log?plugin=${encodeURIComponent(name)}` }, "Follow its log")),
      ),
    );
  }

  function levelForm(levels) {
    const now = levels.plugins[name] ?? "";
    const choice = select(LEVELS.map((level) => [level, level || "as configured"]), now, {
      "data-key": "level",
      onchange: async () => {
        try {
          await ask("POST", "/v1/log", choice.value ? { plugin: name, level: choice.value } : { plugin: name });
          say(choice.value ? `${name} logs at level ${choice.value} now.` : `${name} logs as configured.`, "done");
        } catch (problem) {
          say(problem.message, "error");
        }
      },
    });
    return h("div", { class: "level" }, field("Its log level", choice));
  }

  status();
  return { status, pulse, leave: () => (isHere = false) };
}

/** Who vouches for it; nothing where the host does not look. */
function signature(of) {
  if (!of) return null;
  const by = of.signer ? ` by ${of.signer} (key ${of.key_id})` : "";
  const until = of.expires ? `, expires ${of.expires}` : "";
  return [badge(of.state), `${by}${until}${of.reason ? `: ${of.reason}` : ""}`];
}

function chart(title, values, kind, shown) {
  const known = values.filter((value) => value !== null);
  const top = known.length > 0 ? Math.max(...known) : null;
  return h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, title, " ", h("span", { class: "hint" }, `highest ${shown(top)}`)),
    sparkline(values, `${title}, highest ${shown(top)}`, kind, 320, 64),
  );
}

/** What it says about itself. Its home page is no link: whoever wrote the plugin chose the text. */
function said(about, several) {
  const schema = (title, value) =>
    value ? h("details", { open: title === "Schema of a route's configuration" }, h("summary", {}, title), h("pre", { tabindex: 0, "aria-label": title }, JSON.stringify(value, null, 2))) : null;
  const needs = [...about.needed_variables, about.needs_request_body ? "request body" : null, about.needs_response_body ? "response body" : null];
  return section(
    several ? `About ${about.version}` : "About",
    about.description ? h("p", {}, about.description) : null,
    facts([
      ["Maintainers", about.maintainers.join(", ")],
      ["Home", about.home],
      ["License", about.license],
      ["Bound on a call", about.timeout_ms ? `${about.timeout_ms} ms` : null],
      ["Asks the gateway for", needs.filter(Boolean).join(", ")],
    ]),
    about.config_schema ? null : h("p", { class: "hint" }, "It has no schema for a route's configuration."),
    schema("Schema of a route's configuration", about.config_schema),
    schema("Schema of its settings", about.settings_schema),
  );
}

