// Where every stream stands, and the alarms.

import { byId, element, fill, row, table } from "./dom.js";
import { NONE, count, fixed, known, number, span, time } from "./format.js";

const HEAD = ["stream", "client", "learned", "waiting", "per s", "last error", "not learned", "padded", "idle"];
const PAST_SHOWN = 4;

export function showStreams(told, shown) {
  const rows = told.streams.map((one) => [
    one.stream,
    { true: "seen", false: "not seen" }[one.connected] ?? "?",
    count(one.learned),
    count(one.lag),
    fixed(one.rate),
    number(one.last_error, 3),
    Object.entries(one.dropped).map(([reason, many]) => `${count(many)} ${reason}`).join(", ") || "0",
    count(one.padded),
    known(one.idle_s) ? span(one.idle_s) : NONE,
  ]);
  fill(byId("streams"), rows, () => rows.length === 0
    ? element("p", {}, "None yet. ", element("code", {}, "rjepa stream"), " sends fixations.")
    : table(HEAD, rows.map(([name, ...cells]) => row([link(name, shown), ...cells], { "aria-current": name === shown ? "true" : null }))));
}

function link(name, shown) {
  const current = name === shown ? "page" : null;
  return element("a", { href: `/?stream=${encodeURIComponent(name)}`, "aria-current": current, "data-key": name }, name);
}

export function showAlarms(told) {
  const on = [...told.alarms_on, ...told.streams.flatMap((one) => one.alarms_on)];
  const isOn = (alarm) => on.some((other) => other.kind === alarm.kind && other.stream === alarm.stream && other.since <= alarm.time + 1);
  const past = told.alarms.filter((alarm) => !isOn(alarm)).slice(0, PAST_SHOWN);
  fill(byId("alarms"), { on, past }, () => {
    const items = on.map((alarm) => element(
      "li", {},
      element("span", { class: "bad" }, `▲ ${alarm.kind}`), ` ${alarm.stream ?? "all"}, on since ${time(alarm.since)}: ${alarm.detail} `,
      element("span", { class: "meaning quiet" }, meaning(alarm.kind)),
    ));
    const before = past.map((alarm) => element("li", { class: "past quiet" }, `${time(alarm.time)} ${alarm.kind}, ${alarm.stream ?? "all"}: ${alarm.detail}`));
    return [
      on.length === 0 ? element("p", { class: "quiet" }, past.length ? "None is on. The newest that were told:" : "None.") : null,
      element("ul", { class: "alarms" }, ...items, ...before),
    ].filter(Boolean);
  });
}

// The server wrote every kind with its meaning into the page.
function meaning(kind) {
  const names = [...byId("kinds").querySelectorAll("dt")];
  return names.find((name) => name.textContent === kind)?.nextElementSibling?.textContent ?? "";
}
