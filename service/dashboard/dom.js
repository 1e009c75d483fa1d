// Elements in few words. Text is set as text, so nothing a client named can become markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Put what `build` makes into `place`, only when `state` has changed, and give the focus back to the same control.
export function fill(place, state, build) {
  const told = JSON.stringify(state);
  if (place.filledWith === told) return;
  place.filledWith = told;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  place.replaceChildren(...[build()].flat());
  if (focused) place.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

// Text that assistive technology announces when it changes, and only then.
export function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

export function table(head, rows) {
  const top = element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)));
  return element(
    "div", { class: "rows scroll" },
    element("table", {}, element("thead", {}, top), element("tbody", {}, ...rows)),
  );
}

export function row(cells, attributes = {}) {
  return element("tr", attributes, ...cells.map((cell) => element("td", {}, ...[cell].flat())));
}
