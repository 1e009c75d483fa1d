// Numbers, times and spans as one would say them. What is not known is a dash, never a zero.

export const NONE = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dated = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

export const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? whole.format(value) : NONE);

export const number = (value, digits = 3) => (known(value) ? String(Number(value.toPrecision(digits))) : NONE);

export const fixed = (value, decimals = 2) => (known(value) ? value.toFixed(decimals) : NONE);

export const signed = (value, decimals = 3) =>
  known(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(decimals)}` : NONE;

export const interval = (told, decimals = 3) =>
  told && known(told.value)
    ? `${signed(told.value, decimals)} (${signed(told.low, decimals)} to ${signed(told.high, decimals)})`
    : NONE;

export const percent = (share) => (known(share) ? `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %` : NONE);

export const time = (seconds) => (known(seconds) ? dated.format(new Date(1000 * seconds)) : NONE);

export const hour = (seconds) => (known(seconds) ? clock.format(new Date(1000 * seconds)) : NONE);

export function span(seconds) {
  if (!known(seconds)) return NONE;
  for (const [unit, size, until] of [["s", 1, 120], ["min", 60, 7200], ["h", 3600, 172_800]]) {
    if (seconds < until) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds / 86_400)} days`;
}

export function bytes(size) {
  return size < 1e6 ? `${(size / 1e3).toFixed(0)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

export const words = (name) => (name ? name.replaceAll("_", " ") : NONE);
