import type { ComponentChildren } from "preact";
import { Head } from "../parts/head.tsx";

/** The top of each page of runs; with `keys` what the keyboard does there. */
export function Top({ keys = false, children }: { keys?: boolean; children?: ComponentChildren }) {
  const told = keys ? <span class="keys" aria-hidden="true"><kbd>←</kbd> <kbd>→</kbd> steps <kbd>space</kbd> play <kbd>j</kbd> <kbd>k</kbd> episodes</span> : null;
  return <Head home="runs" end={told}>{children}</Head>;
}
