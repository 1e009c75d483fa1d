// Light or dark, and its colours as a canvas wants them.

const NAMES = ["paper", "panel", "ink", "quiet", "line", "raw", "strong", "other", "good", "bad"];
const listeners = [];
let colours = null;

const system = matchMedia("(prefers-color-scheme: dark)");

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
};

// The colour variables, resolved for the present theme.
export function palette() {
  if (colours === null) {
    const probe = document.createElement("span");
    document.body.append(probe);
    colours = {};
    for (const name of NAMES) {
      probe.style.color = `var(--${name})`;
      colours[name] = getComputedStyle(probe).color;
    }
    probe.remove();
  }
  return colours;
}

export const onTheme = (listener) => listeners.push(listener);

function changed() {
  colours = null;
  for (const listener of listeners) listener();
}

export function startTheme(button) {
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark() ? "Light colours" : "Dark colours");
  };
  button.addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("rjepa-theme", next);
    } catch {
      // Not kept, then.
    }
    name();
    changed();
  });
  system.addEventListener("change", () => {
    name();
    changed();
  });
  name();
}
