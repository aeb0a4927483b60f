// Asks before something is done, and says what came of it.

import { h } from "./dom.js";

/** Says something in the line below the header; stays until something else is said or it is closed. */
export function say(text, kind = "") {
  const notice = document.getElementById("notice");
  notice.className = `notice ${kind}`;
  notice.replaceChildren(text);
  if (!text) return;
  const close = () => say("");
  notice.append(h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: close }, "×"));
}

/**
 * Asks whether something is to be done. Gives what was chosen in the options, or null where it is not to
 * be done. The focus begins on the button that does nothing and returns to where it was.
 */
export function confirm({ title, text, verb, danger = false, options = [] }) {
  return new Promise((resolve) => {
    const boxes = options.map(([name, label]) => [name, h("input", { type: "checkbox", id: `option-${name}` }), label]);
    const cancel = h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel");
    const chosen = () => Object.fromEntries(boxes.map(([name, box]) => [name, box.checked]));
    let answer = null;
    const go = () => {
      answer = chosen();
      dialog.close();
    };
    const dialog = h(
      "dialog",
      {
        role: "alertdialog",
        "aria-labelledby": "dialog-title",
        "aria-describedby": "dialog-text",
        onclose: () => {
          dialog.remove();
          resolve(answer);
        },
      },
      h("h2", { id: "dialog-title" }, title),
      h("p", { id: "dialog-text" }, text),
      boxes.map(([, box, label]) => h("label", { class: "option" }, box, label)),
      h(
        "div",
        { class: "buttons" },
        cancel,
        h("button", { type: "button", class: danger ? "danger" : "primary", onclick: go }, verb),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
