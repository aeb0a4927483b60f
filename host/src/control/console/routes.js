// What routes run: their chains, and every configuration that the gateway has prepared.

import { get } from "./api.js";
import { field, h, put, section, select, table } from "./dom.js";
import { ago, badge, bytes, count, span } from "./format.js";

const PAGE = 100;

/** Chains of routes. */
export function chainTable(chains) {
  return table(
    "Chains of routes",
    [["Route"], ["State"], ["Plugins", "wide"], [""]],
    chains.map((chain) => [
      h("code", {}, chain.key || "(no key)"),
      badge(chain.state),
      h(
        "ol",
        { class: "chain" },
        chain.plugins.map((plugin) =>
          h(
            "li",
            {},
            h("a", { href: `#/plugin/${encodeURIComponent(plugin.name.split("@")[0])}` }, plugin.name),
            " ",
            h("span", { class: "version" }, plugin.version ?? ""),
            plugin.refused ? h("p", { class: "error" }, plugin.refused) : null,
          ),
        ),
      ),
      h("a", { href: `#/try?token=${chain.token}`, "aria-label": `Try a request on ${chain.key}` }, "Try"),
    ]),
    "No route has come by yet.",
  );
}

/** Configurations. */
export function tokenTable(tokens) {
  return table(
    "Live configurations",
    [["Key"], ["State"], ["Plugins"], ["Token", "number"], ["Size", "number"], ["Idle", "number"], ["Ends in", "number"]],
    tokens.map((token) => [
      [h("code", {}, token.key || "(no key)"), token.newest ? null : h("span", { class: "hint" }, " superseded")],
      badge(token.state),
      token.plugins.join(", "),
      token.token,
      bytes(token.bytes),
      span(token.idle_seconds),
      span(token.expires_in_seconds),
    ]),
    "The gateway has prepared nothing yet.",
  );
}

/** The view. */
export function routes(root, _, query) {
  let offset = 0;
  const what = select([["chains", "Chains"], ["tokens", "All configurations"]], query.get("what") ?? "chains", { id: "what" });
  const route = h("input", { type: "search", id: "route", value: query.get("route") ?? "" });
  const plugin = h("input", { type: "search", id: "plugin", value: query.get("plugin") ?? "" });
  const state = select([["", "any"], ["ready", "ready"], ["waiting", "waiting"], ["refused", "refused"]], query.get("state") ?? "", { id: "state" });
  const found = h("div", {});
  const pager = h("div", { class: "buttons" });
  const form = h(
    "form",
    { class: "filters", onsubmit: (event) => { event.preventDefault(); offset = 0; load(); } },
    field("Show", what),
    field("Key contains", route),
    field("Plugin", plugin),
    field("State", state),
    h("button", { type: "submit" }, "Look"),
  );
  put(root, h("h1", {}, "Routes"), form, h("div", { role: "status", "aria-live": "polite" }, found), pager);
  let asked = 0;

  async function load() {
    asked += 1;
    const turn = asked;
    const wanted = new URLSearchParams({ limit: PAGE, offset });
    for (const [name, control] of Object.entries({ route, plugin, state })) {
      if (control.value.trim()) wanted.set(name, control.value.trim());
    }
    const kind = what.value;
    try {
      const answer = await get(`/v1/${kind}?${wanted}`);
      if (turn !== asked) return;
      const entries = answer[kind];
      put(
        found,
        section(
          `${count(answer.total)} found`,
          kind === "chains" ? chainTable(entries) : tokenTable(entries),
        ),
        h("p", { class: "hint" }, "Looked at ", ago(new Date().toISOString()), ". Configurations themselves are never shown: they may hold secrets."),
      );
      const step = (text, to, possible) =>
        h("button", { type: "button", disabled: !possible, onclick: () => { offset = to; load(); } }, text);
      put(pager, answer.total > PAGE ? [step("Previous", Math.max(0, offset - PAGE), offset > 0), step("Next", offset + PAGE, offset + PAGE < answer.total)] : []);
    } catch (problem) {
      put(found, h("p", { class: "callout bad" }, problem.message));
    }
  }

  load();
  return { status: load };
}
