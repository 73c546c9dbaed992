import type { ComponentChildren } from "preact";
import { link } from "../route.ts";
import { theme, toggle } from "../theme.ts";

/** The top of each page: where one is, the ways from here, and light or dark. */
export function Top({ keys = false, children }: { keys?: boolean; children?: ComponentChildren }) {
  return (
    <header class="top">
      <a class="brand" href={link()} aria-label="muxsim, runs">mux<span>sim</span></a>
      {children}
      <span class="grow" />
      {keys ? <span class="keys" aria-hidden="true"><kbd>←</kbd> <kbd>→</kbd> steps <kbd>space</kbd> play <kbd>j</kbd> <kbd>k</kbd> episodes</span> : null}
      <button type="button" class="button" onClick={toggle} aria-label="Light or dark" aria-pressed={theme.value === "dark"} title="Light or dark">◐</button>
    </header>
  );
}
