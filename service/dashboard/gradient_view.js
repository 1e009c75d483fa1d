// Fidelity of the gradient: asked for by hand, since it costs the worker about a second.

import { get } from "./api.js";
import { byId, element, say } from "./dom.js";
import { count, fixed, known, time } from "./format.js";

const MEANINGS = [
  ["exactness", "computed anew"],
  ["live", "as the learner had it"],
  ["credit", "live, against the errors of then"],
];

export function startGradient(stream) {
  const button = byId("gradient-ask");
  const place = byId("gradient");
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.textContent = "Measuring …";
    try {
      show(place, await get("/v1/diagnostics/gradient", { stream }));
    } catch (error) {
      place.replaceChildren(element("p", { class: "bad" }, error.message));
    }
    button.disabled = false;
    button.textContent = "Measure again";
  });
}

// What the last regular look says of it, so that the panel is never without a value once there was one.
export function gradientOfLook(look) {
  const told = known(look?.live_cosine)
    ? `At the last regular look, fixation ${count(look.seq)}: live cosine ${fixed(look.live_cosine, 4)}.`
    : "The last regular look has no value yet.";
  say(byId("gradient-look"), told);
}

function show(place, told) {
  const rows = MEANINGS.map(([key, meaning]) => element(
    "tr", {},
    element("td", {}, `${key}: ${meaning}`),
    element("td", {}, fixed(told[key].cosine, 4)),
    element("td", {}, known(told[key].relative_error) ? told[key].relative_error.toExponential(1) : "–"),
  ));
  const head = ["", "cosine", "relative error"].map((name) => element("th", { scope: "col" }, name));
  const exact = told.rfp_exact ? "exact for these gates" : "approximate for these gates";
  place.replaceChildren(
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows)),
    element("p", { class: "note" }, `Over ${count(told.window)} losses, ${exact}. Measured ${time(Date.now() / 1000)}.`),
  );
}
