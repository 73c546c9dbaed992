import { COLORS, type Kind } from "./cells.ts";

/** What a session of this kind looks like in the pool; with `share` as wide a part of a bar. */
export function Square({ kind, share }: { kind: Kind; share?: number }) {
  return <span class={`square ${kind}`} style={{ "--s": `var(${COLORS[kind]})`, ...(share === undefined ? {} : { flexGrow: share }) }} aria-hidden="true" />;
}
