/** The squares of the pool: which kind each is, which are wanted, and where each lies. Pure. */
import type { Count, SessionRow } from "../feed.ts";
import { words } from "../numbers.ts";

export const KINDS = ["opening", "started", "idle", "busy", "restoring", "ending", "ended", "failed"] as const;
export type Kind = (typeof KINDS)[number];

export const MEANINGS: Readonly<Record<Kind, string>> = {
  opening: "waits for its turn or its process",
  started: "has a process, and no client has shaken hands with it yet",
  idle: "is ready, with no call in flight",
  busy: "has a call in flight",
  restoring: "is getting another process",
  ending: "is being ended",
  ended: "has ended",
  failed: "ended as nobody wished",
};

/** The token of each one's color: no two have the same. */
export const COLORS: Readonly<Record<Kind, string>> = {
  opening: "--warn", started: "--c2", idle: "--idle", busy: "--accent", restoring: "--c5", ending: "--c3", ended: "--edge", failed: "--bad",
};

const BY_STATE: Readonly<Record<SessionRow["state"], Kind>> = {
  opening: "opening", started: "started", ready: "idle", restoring: "restoring", ending: "ending", ended: "ended",
};

export function kindOf(row: Pick<SessionRow, "state" | "in_flight" | "failed">): Kind {
  if (row.failed) return "failed";
  return row.state === "ready" && row.in_flight > 0 ? "busy" : BY_STATE[row.state];
}

/** Sessions that are only counted: who has a call in flight is not known of them, nor whether an end was wished. */
export function kindOfCount({ state }: Count): Kind {
  return BY_STATE[state];
}

/** What the reader looks for; an empty text is anything. */
export interface Filter {
  readonly text: string;
  readonly env: string;
  readonly kind: Kind | "";
}

export const ALL: Filter = { text: "", env: "", kind: "" };

/** Whether each word of the text is in the id, environment, seed, owner, state or end of a session. */
export function matches(row: SessionRow, { text, env, kind }: Filter): boolean {
  if ((env && row.env !== env) || (kind && kindOf(row) !== kind)) return false;
  if (!text) return true;
  const told = [row.id, row.env, row.seed, row.owner ?? "", row.state, words(row.end ?? ""), row.end ?? ""].join("\n").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => told.includes(word));
}

export interface Layout {
  /** From a square's edge to the next one's, and of a square itself, in pixels. */
  readonly pitch: number;
  readonly side: number;
  readonly columns: number;
  readonly rows: number;
}

// Pitch and side, from few squares to thousands, and how high the pool may become before it takes the next.
const SIZES = [[26, 22], [19, 16], [14, 11], [10, 8]] as const;
const HIGHEST = 280;

export function layout(count: number, width: number): Layout {
  let chosen: Layout = { pitch: 10, side: 8, columns: 1, rows: 0 };
  for (const [pitch, side] of SIZES) {
    const columns = Math.max(1, Math.floor((width + pitch - side) / pitch));
    chosen = { pitch, side, columns, rows: Math.ceil(count / columns) };
    if (chosen.rows * pitch <= HIGHEST) break;
  }
  return chosen;
}

/** Which square is at a point; -1 for none. */
export function at({ pitch, side, columns }: Layout, count: number, x: number, y: number): number {
  const [column, row] = [Math.floor(x / pitch), Math.floor(y / pitch)];
  const place = row * columns + column;
  const between = x - column * pitch > side || y - row * pitch > side;
  return x < 0 || y < 0 || column >= columns || between || place >= count ? -1 : place;
}

/** Where a key leads to from a square; null for a key that does not. */
export function moved(key: string, place: number, { columns, rows }: Layout, count: number): number | null {
  const page = columns * Math.max(1, Math.min(10, rows - 1));
  const to: Readonly<Record<string, number>> = {
    ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns,
    PageUp: place - page, PageDown: place + page, Home: 0, End: count - 1,
  };
  const wish = to[key];
  return wish === undefined ? null : Math.max(0, Math.min(count - 1, wish));
}

/** A session in a line of words. */
export function told(row: SessionRow): string {
  const end = row.end ? `, ${words(row.end)}` : "";
  const owner = row.owner === null ? "" : `, of ${row.owner}`;
  return `${row.env}, seed ${row.seed}, ${kindOf(row)}${end}, ${row.calls} calls${owner}, ${row.id}`;
}
