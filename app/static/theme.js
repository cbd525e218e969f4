/** Light or dark: as the system has it, or as the person wants it. */

const NAME = "theme";
const NEXT = { "": "light", light: "dark", dark: "" };
const WORDS = { "": "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Let a button go through the themes. The choice is kept by the browser, where it keeps any. */
export function installThemeSwitch(button) {
  let theme = kept();
  const show = () => {
    if (theme) document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    button.textContent = WORDS[theme];
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    keep(theme);
    show();
  });
  show();
}

function kept() {
  try {
    const theme = localStorage.getItem(NAME) ?? "";
    return theme in NEXT ? theme : "";
  } catch {
    return ""; // storage is turned off
  }
}

function keep(theme) {
  try {
    localStorage.setItem(NAME, theme);
  } catch {
    // Storage is turned off or full: it holds for this page only.
  }
}
