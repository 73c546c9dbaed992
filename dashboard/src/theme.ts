import { signal } from "@preact/signals";

export type Theme = "light" | "dark";

const KEPT = "muxsim-theme";

/** What the reader has chosen, or null where the system decides. */
export const chosen = signal<Theme | null>(remembered());
const preferred = matchMedia("(prefers-color-scheme: dark)");
/** Which of the two is shown. */
export const theme = signal<Theme>(shown());

preferred.addEventListener("change", apply);

/** Show what the reader or else the system wants; once, before anything is drawn. */
export function apply(): void {
  if (chosen.value) document.documentElement.dataset.theme = chosen.value;
  theme.value = shown();
}

/** Choose the other of the two. */
export function toggle(): void {
  // What is seen, which the style sheet may know before an event tells of it.
  chosen.value = shown() === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEPT, chosen.value);
  } catch {
    // A page without storage is as the system is.
  }
  apply();
}

function shown(): Theme {
  return chosen.value ?? (preferred.matches ? "dark" : "light");
}

function remembered(): Theme | null {
  try {
    const kept = localStorage.getItem(KEPT);
    return kept === "light" || kept === "dark" ? kept : null;
  } catch {
    return null;
  }
}
