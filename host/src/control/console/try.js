// Sends a request through a chain, and shows what each plugin makes of it.

import { get, post } from "./api.js";
import { field, h, put, select } from "./dom.js";
import { badge, span } from "./format.js";
import { live } from "./live.js";

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
const OWN = "own";

/** The view. */
export function tryOut(root, _, query) {
  const chain = select([[OWN, "Plugins of my choice"]], OWN, { id: "chain" });
  const plugins = h("div", { class: "own" });
  const method = select(METHODS.map((it) => [it, it]), "GET", { id: "method" });
  const path = h("input", { type: "text", id: "path", value: "/", required: true, spellcheck: "false" });
  const search = h("input", { type: "text", id: "query", placeholder: "a=1&b=2", spellcheck: "false" });
  const headers = h("textarea", { id: "headers", rows: 3, placeholder: "x-user: me", spellcheck: "false" });
  const client = h("input", { type: "text", id: "client", value: "127.0.0.1", spellcheck: "false" });
  const body = h("textarea", { id: "body", rows: 2, spellcheck: "false" });
  const phase = select([["request", "Request, before it goes upstream"], ["response", "Response, before it goes to the client"]], "request", { id: "phase" });
  const status = h("input", { type: "number", id: "status", min: 100, max: 999, value: 200 });
  const statusField = field("Upstream's status", status);
  const send = h("button", { type: "submit", class: "primary", id: "send" }, "Send");
  const result = h("div", { id: "result", role: "status", "aria-live": "polite" });
  let isHere = true;

  const form = h(
    "form",
    { class: "try", onsubmit: submit },
    h("div", { class: "span" }, field("Chain", chain)),
    plugins,
    field("Method", method),
    field("Path", path),
    field("Query", search),
    field("Client address", client),
    field("Phase", phase),
    statusField,
    h("div", { class: "span" }, field("Headers", headers, "One `name: value` a line; in the response phase those of the upstream's response")),
    h("div", { class: "span" }, field("Body", body)),
    h("div", { class: "span buttons" }, send),
  );
  put(
    root,
    h("h1", {}, "Try a request"),
    h(
      "p",
      { class: "hint" },
      "Nothing goes upstream, and no configuration is shared with live routes. Plugins really run, once for each plugin from them to the end of the chain: what they ask of other services is asked.",
    ),
    form,
    result,
  );

  addPlugin();
  chain.addEventListener("change", choose);
  phase.addEventListener("change", choose);
  choose();

  function choose() {
    plugins.hidden = chain.value !== OWN;
    statusField.hidden = phase.value !== "response";
  }

  function addPlugin() {
    const number = plugins.querySelectorAll(".pair").length + 1;
    const names = [...new Set((live.status?.plugins ?? []).map((plugin) => plugin.name).filter(Boolean))];
    const list = h("datalist", { id: `names-${number}` }, names.map((name) => h("option", { value: name })));
    const name = h("input", { type: "text", id: `plugin-${number}`, list: `names-${number}`, spellcheck: "false", value: number === 1 ? (names[0] ?? "") : "" });
    const conf = h("textarea", { id: `conf-${number}`, rows: 2, spellcheck: "false" });
    conf.value = "{}";
    const pair = h("div", { class: "pair" }, field(`Plugin ${number}`, name), field(`Configuration ${number}`, conf), list);
    const more = plugins.querySelector(".more") ?? h("button", { type: "button", class: "more", onclick: addPlugin }, "Add a plugin");
    plugins.append(pair, more);
  }

  async function load() {
    const chains = await get("/v1/chains?limit=1000").catch(() => ({ chains: [] }));
    if (!isHere) return;
    const chosen = chain.value;
    const wanted = query.get("token");
    chain.replaceChildren(h("option", { value: OWN }, "Plugins of my choice"));
    for (const entry of chains.chains) {
      const names = entry.plugins.map((plugin) => plugin.name).join(", ");
      chain.append(h("option", { value: String(entry.token) }, `${entry.key}: ${names}`));
    }
    const values = [...chain.options].map((option) => option.value);
    const first = values.length > 1 ? values[1] : OWN;
    chain.value = values.includes(wanted) ? wanted : first;
    if (chosen !== OWN && values.includes(chosen)) chain.value = chosen;
    const of = chains.chains.find((entry) => String(entry.token) === chain.value);
    if (of?.key.includes("post-resp")) phase.value = "response";
    choose();
  }

  function wanted() {
    const request = {
      method: method.value,
      target: search.value.trim() ? `${path.value}?${search.value.trim()}` : path.value,
      headers: headers.value
        .split("\n")
        .filter((line) => line.trim())
        .map((line) => {
          const colon = line.indexOf(":");
          if (colon < 1) throw new Error(`Headers: write \`name: value\`, not \`${line}\`.`);
          return { name: line.slice(0, colon).trim(), value: line.slice(colon + 1).trim() };
        }),
    };
    if (client.value.trim()) request.client = client.value.trim();
    if (body.value) request.body = body.value;
    if (phase.value === "response") request.response_status = Number(status.value);
    if (chain.value !== OWN) return { ...request, token: Number(chain.value) };
    const own = [...plugins.querySelectorAll(".pair")].map((pair) => ({
      name: pair.querySelector("input").value.trim(),
      configuration: pair.querySelector("textarea").value,
    }));
    return { ...request, plugins: own.filter((plugin) => plugin.name) };
  }

  async function submit(event) {
    event.preventDefault();
    send.disabled = true;
    put(result, h("p", { class: "hint" }, "On its way …"));
    try {
      put(result, shown(await post("/v1/try", wanted())));
    } catch (problem) {
      put(result, h("p", { class: "callout bad" }, problem.message));
    }
    send.disabled = false;
    if (document.activeElement === document.body) send.focus();
  }

  load();
  return { leave: () => (isHere = false) };
}

/** What came of it. */
function shown(tried) {
  const { outcome } = tried;
  const body = outcome.body === null ? null : (outcome.body.hex ?? outcome.body);
  return [
    h("h2", {}, "What each plugin does"),
    tried.plugins.length === 0 ? h("p", { class: "empty" }, "The chain has no plugin.") : h("ol", { class: "steps" }, tried.plugins.map(step)),
    h("h2", {}, "What the gateway does"),
    h(
      "div",
      { class: `callout ${outcome.action === "failed" ? "bad" : "good"}` },
      h("p", {}, h("strong", {}, outcome.action), ": ", outcome.headline),
      list(outcome.lines),
      body === null ? null : h("pre", { tabindex: 0, "aria-label": "Body" }, body),
      body !== null && outcome.body_bytes > body.length ? h("p", { class: "hint" }, `of ${outcome.body_bytes} bytes`) : null,
      outcome.notes.map((note) => h("p", { class: "hint" }, `Note: ${note}`)),
    ),
  ];
}

function step(plugin) {
  return h(
    "li",
    { class: "card" },
    h(
      "p",
      {},
      h("strong", {}, plugin.name),
      " ",
      h("span", { class: "version" }, plugin.version ?? ""),
      " ",
      badge(plugin.effect),
      plugin.microseconds === null ? null : h("span", { class: "hint" }, ` ${span(plugin.microseconds / 1e6)} up to here`),
    ),
    plugin.reason ? h("p", { class: "error" }, plugin.reason) : null,
    list(plugin.changes),
    plugin.undone.length > 0 ? [h("p", { class: "hint" }, "Takes back:"), list(plugin.undone)] : null,
    plugin.questions.length > 0
      ? h(
          "details",
          {},
          h("summary", {}, `${plugin.questions.length} asked of the gateway so far`),
          list(plugin.questions.map((asked) => `${asked.question}: ${asked.answer ?? "there is none"}`)),
        )
      : null,
  );
}

function list(lines) {
  return lines.length === 0 ? null : h("ul", { class: "lines" }, lines.map((line) => h("li", {}, h("code", {}, line))));
}
