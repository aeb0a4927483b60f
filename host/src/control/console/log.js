// The log as it is written, and what goes into it.

import { get, post } from "./api.js";
import { say } from "./dialog.js";
import { field, h, put, section, select } from "./dom.js";

const SHOWN = 500;
const LEVELS = ["", "error", "warn", "info", "debug", "trace"];

/** The view. */
export function log(root, _, query) {
  const plugin = h("input", { type: "search", id: "log-plugin", value: query.get("plugin") ?? "" });
  const level = select(LEVELS.map((it) => [it, it ? `${it} and above` : "all"]), query.get("level") ?? "", { id: "log-level" });
  const follow = h("input", { type: "checkbox", id: "follow" });
  follow.checked = true;
  const lines = h("ol", { class: "log", tabindex: 0, "aria-label": "Log lines", id: "lines" });
  const levels = h("div", {});
  let source = null;

  put(
    root,
    h("h1", {}, "Log"),
    h(
      "form",
      { class: "filters", onsubmit: (event) => { event.preventDefault(); open(); } },
      field("Plugin", plugin),
      field("Level", level),
      h("label", { class: "option", for: "follow" }, follow, "Scroll with it"),
      h("button", { type: "submit" }, "Look"),
    ),
    lines,
    levels,
  );

  function open() {
    source?.close();
    lines.replaceChildren();
    const wanted = new URLSearchParams({ tail: "200" });
    if (plugin.value.trim()) wanted.set("plugin", plugin.value.trim());
    if (level.value) wanted.set("level", level.value);
    let last = 0;
    source = new EventSource(`/v1/log/follow?${wanted}`);
    source.addEventListener("line", (event) => {
      const line = JSON.parse(event.data);
      // After a broken connection the last lines come again.
      if (line.number <= last) return;
      last = line.number;
      lines.append(h("li", { class: line.level ?? "" }, line.line));
      while (lines.children.length > SHOWN) lines.firstChild.remove();
      if (follow.checked) lines.scrollTop = lines.scrollHeight;
    });
  }

  async function shown() {
    const now = await get("/v1/log").catch(() => null);
    if (!now) return;
    const filter = h("input", { type: "text", id: "log-filter", value: now.filter, spellcheck: "false" });
    const change = async (body, told) => {
      try {
        await post("/v1/log", body);
        say(told, "done");
        shown();
      } catch (problem) {
        say(problem.message, "error");
      }
    };
    const own = Object.entries(now.plugins);
    put(
      levels,
      section(
        "What is logged",
        h(
          "form",
          { class: "filters", onsubmit: (event) => { event.preventDefault(); change({ filter: filter.value }, "Logged so from now on, until the host ends."); } },
          field("Directives", filter, "As --log takes them: debug, or info,plugin_host::server=debug"),
          h("button", { type: "submit" }, "Set"),
          h("button", { type: "button", onclick: () => change({}, "Logged as configured.") }, "As configured"),
        ),
        own.length > 0 ? h("p", {}, "Plugins with a level of their own: ", own.map(([name, its]) => `${name} (${its})`).join(", ")) : null,
      ),
    );
  }

  open();
  shown();
  return { leave: () => source?.close() };
}
