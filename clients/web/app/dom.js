/** Making elements. Text only ever becomes text nodes: nothing here parses HTML. */

const HIDDEN_MS = 250;
const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: `h("button", {class: "x", onclick, aria: {label}}, "text", child)`.
 *
 * `on…` are listeners, `aria` and `data` are maps, what is false, null or undefined is left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "aria") setAll(element, "aria-", value);
    else if (name === "data") setAll(element, "data-", value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function setAll(element, prefix, values) {
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined) element.setAttribute(prefix + name, String(value));
  }
}

/** An icon of the sprite in index.html. With a label it is an image, without it is decoration. */
export function icon(name, label) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon icon-${name}`);
  if (label) {
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
  } else {
    svg.setAttribute("aria-hidden", "true");
  }
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A round button that shows an icon. */
export function iconButton(name, label, onclick, properties = {}) {
  return h(
    "button",
    { type: "button", title: label, ...properties, class: `icon-button ${properties.class ?? ""}`, aria: { label }, onclick },
    icon(name),
  );
}

/**
 * Make the children of `parent` those that `rows` describe: `[{key, signature, build}]`.
 *
 * A row whose signature is as before keeps its element, so that focus, hover and animation stay.
 */
export function reconcile(parent, rows) {
  const held = (parent.heldRows ??= new Map());
  const next = new Map();
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const focusedKey = focused && [...held].find(([, { element }]) => element.contains(focused))?.[0];
  let place = parent.firstChild;
  for (const { key, signature, build } of rows) {
    let row = held.get(key);
    if (row === undefined || row.signature !== signature) {
      const element = build(row?.element);
      if (row !== undefined && row.element !== element) {
        if (row.element === place) place = place.nextSibling;
        row.element.replaceWith(element);
        if (element.nextSibling === place) place = element;
      }
      row = { element, signature };
    }
    next.set(key, row);
    if (row.element === place) place = place.nextSibling;
    else parent.insertBefore(row.element, place);
  }
  for (const [key, row] of held) {
    if (!next.has(key)) {
      if (row.element === place) place = place.nextSibling;
      row.element.remove();
    }
  }
  parent.heldRows = next;
  if (focused && focused !== document.activeElement) focusAnew(focused, rowOf(parent, focusedKey));
}

/** The element of the row with that key. */
export const rowOf = (parent, key) => parent.heldRows?.get(key)?.element;

/** Focus what stands in a row's new element where `control` stood in the old one. */
export function focusAnew(control, row) {
  const { control: name } = control.dataset;
  const same = name && [...(row?.querySelectorAll("[data-control]") ?? [])].find((one) => one.dataset.control === name);
  (same ?? row)?.focus({ preventScroll: true });
}

/** Call `work` once in the next frame, however often it is asked for. */
export function onceAFrame(work) {
  let isWaiting = false;
  return () => {
    if (isWaiting) return;
    isWaiting = true;
    const run = () => {
      if (!isWaiting) return;
      isWaiting = false;
      work();
    };
    requestAnimationFrame(run);
    setTimeout(run, HIDDEN_MS); // a hidden tab gets no frames, but its title should be right
  };
}

/** Tell people who listen rather than look. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

/** A listener for dialogs: a click beside the dialog closes it. */
export function closeOnBackdrop(event) {
  if (event.target === event.currentTarget) event.currentTarget.close();
}

/** A listener for lists: the arrow keys go from one to the next, and above the first to `before`. */
export function moveFocus(event, before) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const items = [...event.currentTarget.querySelectorAll("a, button")];
  const next = items[items.indexOf(document.activeElement) + step];
  event.preventDefault();
  (next ?? (step < 0 ? before : null))?.focus();
}
