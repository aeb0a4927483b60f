// What an operator can do: each with a question before and a word about what came of it.

import { pluginPath, post } from "./api.js";
import { confirm, say } from "./dialog.js";
import { h } from "./dom.js";

const FORCE = [["force", "Overrule: load it even where it refuses configurations that work now"]];

/** Asks, acts, and says what came of it. Gives whether it was done. */
async function act(question, path, body, told) {
  const options = await confirm(question);
  if (options === null) return false;
  say(`${question.title} …`);
  try {
    const answer = await post(options.force ? `${path}?force=true` : path, body);
    say(told(answer), "done");
    return true;
  } catch (problem) {
    say(`${question.title}: ${problem.message}`, "error");
    return false;
  }
}

/** A button for an action. */
function button(key, text, act, danger) {
  return h("button", { type: "button", "data-key": key, class: danger ? "danger-quiet" : "", onclick: act }, text);
}

/** What a look at the directory did. */
function reloaded({ loaded = [], problems = [] }) {
  if (problems.length > 0) throw new Error(problems.join("\n"));
  return loaded.length > 0 ? `Serving now: ${loaded.join(", ")}.` : "Nothing was new.";
}

/** The actions on a plugin. `several` says that its name alone does not say which version. */
export function pluginActions(plugin, several, quarantined) {
  const name = plugin.name;
  const one = several && plugin.version ? `${name}@=${plugin.version}` : name;
  const label = plugin.version ? `${name} ${plugin.version}` : name;
  const buttons = [];
  const key = (what) => `${what} ${one}`;
  if (plugin.state !== "disabled") {
    buttons.push(
      button(key("upgrade"), "Upgrade", () =>
        act(
          {
            title: `Upgrade ${name}`,
            text: "Tries the files in its directory now, also where they have failed before. What serves goes on until the new version has passed every check.",
            verb: "Upgrade",
            options: FORCE,
          },
          pluginPath(one, "upgrade"),
          undefined,
          reloaded,
        ),
      ),
    );
  }
  if (plugin.previous) {
    buttons.push(
      button(key("rollback"), `Roll back to ${plugin.previous}`, () =>
        act(
          {
            title: `Roll back ${label}`,
            text: `Version ${plugin.previous} serves again, from the copy that the host has kept. The files in the directory are not loaded again until they change.`,
            verb: "Roll back",
            options: FORCE,
          },
          pluginPath(one, "rollback"),
          undefined,
          (answer) => `${answer.serving} serves now.`,
        ),
      ),
    );
  }
  if (plugin.found_blocking) {
    buttons.push(
      button(key("unblock"), "Trust with the event loops", () =>
        act(
          {
            title: `Run ${label} on the event loops again`,
            text: "Until it holds one up again; every connection of that loop waits then.",
            verb: "Trust it",
          },
          pluginPath(one, "unblock"),
          undefined,
          (answer) => `Runs on the event loops again: ${answer.unblocked.join(", ") || "nothing"}.`,
        ),
      ),
    );
  }
  if (plugin.state === "disabled") {
    buttons.push(
      button(key("enable"), "Enable", () =>
        act(
          { title: `Enable ${name}`, text: "It serves its routes again.", verb: "Enable" },
          pluginPath(name, "enable"),
          undefined,
          reloaded,
        ),
      ),
    );
  } else {
    buttons.push(
      button(
        key("disable"),
        "Disable",
        () =>
          act(
            {
              title: `Disable ${name}`,
              text: "Every version of it is taken out of service, and its routes fail closed (503) until it is enabled again.",
              verb: "Disable",
              danger: true,
            },
            pluginPath(name, "disable"),
            undefined,
            () => `${name} is disabled: its routes fail closed.`,
          ),
        true,
      ),
    );
  }
  if (plugin.state === "serving") {
    const instead = plugin.previous ? `${plugin.previous} serves instead.` : "Nothing served before it: its routes fail closed (503).";
    buttons.push(
      button(
        key("quarantine"),
        "Quarantine",
        () =>
          act(
            {
              title: `Quarantine ${label}`,
              text: `This build is not loaded again until that is lifted or another file comes. ${instead}`,
              verb: "Quarantine",
              danger: true,
            },
            pluginPath(one, "quarantine"),
            undefined,
            (answer) => `${answer.name} ${answer.version} is in quarantine; ${answer.serving_instead ?? "nothing"} serves instead.`,
          ),
        true,
      ),
    );
  }
  if (quarantined) {
    buttons.push(
      button(key("lift"), "Lift quarantine", () =>
        act(
          {
            title: `Lift the quarantine of ${name}`,
            text: "Every build of it may be loaded again, with a clean record; its files are tried at once.",
            verb: "Lift",
          },
          pluginPath(name, "lift"),
          undefined,
          reloaded,
        ),
      ),
    );
  }
  return h("div", { class: "actions", role: "group", "aria-label": `Actions on ${label}` }, buttons);
}

/** Looks at the plugin directory. */
export function rescanButton() {
  return button("rescan", "Rescan", () =>
    act(
      {
        title: "Rescan the plugin directory",
        text: "Tries everything that is new there, and again what has failed before.",
        verb: "Rescan",
        options: FORCE,
      },
      "/v1/rescan",
      undefined,
      reloaded,
    ),
  );
}

/** What can be done to the host as a whole. */
export function hostActions() {
  return h(
    "div",
    { class: "actions", role: "group", "aria-label": "Actions on the host" },
    button("replace", "Replace worker", () =>
      act(
        {
          title: "Replace the worker",
          text: "Another one loads every plugin and takes the connections over between two calls; no call is lost.",
          verb: "Replace",
        },
        "/v1/workers/replace",
        undefined,
        () => "Another worker serves.",
      ),
    ),
    button("renew", "Upgrade the host", () =>
      act(
        {
          title: "Upgrade the host itself",
          text: "Goes on as the program that has replaced the host's own on disk, where that can take over. No connection is closed.",
          verb: "Upgrade",
        },
        "/v1/renew",
        undefined,
        (answer) => `Release ${answer.release ?? ""} takes over.`,
      ),
    ),
    button(
      "drain",
      "Drain",
      () =>
        act(
          {
            title: "End the host",
            text: "As SIGTERM does: open calls may end, then it exits. A gateway that has started it starts it anew after 3 s; any other one is without plugins.",
            verb: "End the host",
            danger: true,
          },
          "/v1/drain",
          undefined,
          () => "The host is about to end.",
        ),
      true,
    ),
  );
}
