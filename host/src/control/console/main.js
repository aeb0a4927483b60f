// The page: signing in, which view the address means, and what is told by itself.

import { ask, get } from "./api.js";
import { say } from "./dialog.js";
import { field, h, put } from "./dom.js";
import { crash, host, settings } from "./host.js";
import { listen, live, start, stop } from "./live.js";
import { log } from "./log.js";
import { overview } from "./overview.js";
import { plugin } from "./plugin.js";
import { routes } from "./routes.js";
import { tryOut } from "./try.js";

const VIEWS = {
  "": ["Plugins", overview],
  plugin: ["Plugin", plugin],
  routes: ["Routes", routes],
  try: ["Try", tryOut],
  host: ["Host", host],
  crash: ["Crash report", crash],
  log: ["Log", log],
  settings: ["Settings", settings],
};

const main = document.getElementById("main");
const header = document.getElementById("top");
let view = null;
let isSignedIn = false;

/** Shows what the address says. The focus goes to the content, as on a page of its own. */
function show(isFirst) {
  if (!isSignedIn) return;
  view?.leave?.();
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  let parameter = rest.join("/");
  try {
    parameter = decodeURIComponent(parameter);
  } catch {
    // It stays as it is, and nothing is found under it.
  }
  const [title, make] = VIEWS[name] ?? VIEWS[""];
  document.title = parameter ? `${parameter} · plugin-host` : `${title} · plugin-host`;
  for (const link of document.querySelectorAll("#nav a")) {
    const part = link.getAttribute("href").replace(/^#\/?/, "");
    const isHere = part === (name === "plugin" ? "" : name === "crash" ? "host" : name);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren();
  view = make(main, parameter, new URLSearchParams(query));
  if (!isFirst) {
    say("");
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** The line that says how the host is; read out only when the words change. */
function tellState() {
  const line = document.getElementById("live");
  let [text, kind] = ["Connecting …", "wait"];
  if (!live.connected && live.status) [text, kind] = ["No connection, trying again", "bad"];
  else if (live.connected && live.status) {
    const ready = live.pulse?.ready ?? live.status.readiness.ready;
    [text, kind] = ready ? ["Ready", "good"] : ["Not ready", "bad"];
  }
  if (line.textContent === text) return;
  line.className = `live ${kind}`;
  line.textContent = text;
}

function signIn() {
  stop();
  view?.leave?.();
  view = null;
  isSignedIn = false;
  header.hidden = true;
  document.title = "Sign in · plugin-host";
  const token = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true });
  const wrong = h("p", { class: "error", role: "alert" });
  const form = h(
    "form",
    {
      class: "sign-in card",
      onsubmit: async (event) => {
        event.preventDefault();
        wrong.textContent = "";
        try {
          await ask("POST", "/v1/session", { token: token.value });
          enter();
        } catch (problem) {
          wrong.textContent = problem.message;
          token.select();
        }
      },
    },
    h("h1", {}, "plugin-host"),
    // For password managers, which want a name beside what they keep.
    h("input", { type: "text", autocomplete: "username", value: "operator", hidden: true }),
    field("Token", token, "The one in the host's --control-token-file"),
    wrong,
    h("button", { type: "submit", class: "primary" }, "Sign in"),
  );
  put(main, form);
  token.focus();
}

function enter() {
  isSignedIn = true;
  header.hidden = false;
  start();
  show(true);
  main.focus({ preventScroll: true });
}

listen((kind) => {
  tellState();
  if (kind === "status") view?.status?.();
  if (kind === "pulse") view?.pulse?.();
});
addEventListener("hashchange", () => show(false));
document.addEventListener("signed-out", () => {
  if (isSignedIn) signIn();
});
document.getElementById("sign-out").addEventListener("click", async () => {
  await ask("DELETE", "/v1/session").catch(() => {});
  say("");
  signIn();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

get("/v1/session").then(enter, signIn);
