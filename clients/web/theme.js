// Before anything is painted: the colours that the person chose here, if not the system's.
(() => {
  try {
    const theme = localStorage.getItem("duet-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // storage is switched off: the system's colours, then
  }
})();
