// Elements from plain values. Every text becomes a text node: nothing here, and nothing that uses it,
// makes markup of one.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are functions listen to the event of that name (`onclick`). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...flat(children));
  return element;
}

function flat(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Puts these in the place of what is in an element. The focus stays with whatever has the same key. */
export function put(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.dataset.key;
  element.replaceChildren(...flat(children));
  if (!key) return;
  for (const candidate of element.querySelectorAll("[data-key]")) {
    if (candidate.dataset.key === key) {
      candidate.focus({ preventScroll: true });
      return;
    }
  }
}

/** A table: columns are `[heading, class]`, rows lists of cells; each cell knows its heading. */
export function table(caption, columns, rows, empty = "None.") {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const heads = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) => row(columns, cells));
  return h(
    "div",
    { class: "table", role: "region", "aria-label": caption, tabindex: 0 },
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, caption),
      h("thead", {}, h("tr", {}, heads)),
      h("tbody", {}, body),
    ),
  );
}

/** A row of such a table; the first cell names it. */
export function row(columns, cells) {
  return h(
    "tr",
    {},
    cells.map((cell, index) => {
      const [title, kind] = columns[index];
      const attributes = { class: kind, "data-label": title };
      if (index === 0) attributes.scope = "row";
      return h(index === 0 ? "th" : "td", attributes, cell);
    }),
  );
}

/** Facts by name; those that are not there are left out. */
export function facts(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

/** A part of the page with a heading. */
export function section(title, ...children) {
  return h("section", {}, h("h2", {}, title), children);
}

/** A number with its name. */
export function tile(name, value, kind) {
  return h("div", { class: `tile ${kind ?? ""}` }, h("dt", {}, name), h("dd", {}, value));
}

/** A field of a form with its label. */
export function field(label, control, hint) {
  const id = control.id || `field-${label.toLowerCase().replace(/[^a-z]+/g, "-")}`;
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null,
  );
}

/** A choice out of a few: `[value, text]`. */
export function select(options, value, attributes = {}) {
  const element = h("select", attributes);
  for (const [option, text] of options) element.append(h("option", { value: option }, text));
  element.value = value;
  return element;
}
