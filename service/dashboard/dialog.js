// Asking before something that can't be taken back in one step.

import { byId } from "./dom.js";

// Whether the answer was yes. The cancelling button has the focus; Escape is no.
export function confirmed(title, body, yes) {
  const dialog = byId("dialog");
  byId("dialog-title").textContent = title;
  byId("dialog-body").replaceChildren(...body);
  byId("dialog-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
