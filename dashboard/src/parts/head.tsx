import type { ComponentChildren } from "preact";
import { link } from "../route.ts";
import { theme, toggle } from "../theme.ts";

/** The top of each page: whose it is, the ways from here, what `end` has to say, and light or dark. */
export function Head({ home, end, children }: { home: string; end?: ComponentChildren; children?: ComponentChildren }) {
  return (
    <header class="top">
      <a class="brand" href={link()} aria-label={`muxsim, ${home}`}>mux<span>sim</span></a>
      {children}
      <span class="grow" />
      {end}
      <button type="button" class="button" onClick={toggle} aria-label={theme.value === "dark" ? "Light theme" : "Dark theme"} title="Light or dark">◐</button>
    </header>
  );
}
