// Before anything is painted: say that scripts run, and take the light or dark that was chosen last.
document.documentElement.classList.add("script");
try {
  const chosen = localStorage.getItem("rjepa-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing follows the system.
}
