/** A session's messages as a conversation: each answer with its request. Pure. */
import type { Seen } from "../feed.ts";

/** A request and, once it has come, its answer; one of the two may have been left out by the server. */
export interface Exchange {
  readonly is: "exchange";
  readonly n: number;
  readonly from: Seen["from"];
  readonly request: Seen | null;
  readonly answer: Seen | null;
}

/** Something that is said without an answer. */
export interface Note {
  readonly is: "note";
  readonly n: number;
  readonly from: Seen["from"];
  readonly seen: Seen;
}

export type Entry = Exchange | Note;

/** Entries in the order of their beginning. */
export function converse(messages: readonly Seen[]): Entry[] {
  const entries: Entry[] = [];
  const waiting = new Map<string, number>();
  for (const seen of messages) {
    if (seen.kind === "notification") entries.push({ is: "note", n: seen.n, from: seen.from, seen });
    else if (seen.kind === "request") {
      const key = `${seen.from} ${seen.id ?? ""}`;
      // A client's is numbered by muxsim: under its number there is no other.
      if (seen.from === "client" && waiting.has(key)) continue;
      waiting.set(key, entries.length);
      entries.push({ is: "exchange", n: seen.n, from: seen.from, request: seen, answer: null });
    } else answer(entries, waiting, seen);
  }
  return entries;
}

function answer(entries: Entry[], waiting: Map<string, number>, seen: Seen): void {
  const asker = seen.from === "server" ? "client" : "server";
  const key = `${asker} ${seen.id ?? ""}`;
  const place = waiting.get(key);
  waiting.delete(key);
  const entry = place === undefined ? undefined : entries[place];
  if (place !== undefined && entry?.is === "exchange") entries[place] = { ...entry, answer: seen };
  else entries.push({ is: "exchange", n: seen.n, from: asker, request: null, answer: seen });
}

const read = new WeakMap<Seen, unknown>();

/** The body as a value; undefined for one that has been cut or is no JSON. */
export function bodyOf(seen: Seen): unknown {
  if (!read.has(seen)) read.set(seen, parsed(seen.body, seen.cut));
  return read.get(seen);
}

function parsed(body: string, cut: number): unknown {
  if (cut > 0) return undefined;
  try {
    return JSON.parse(body);
  } catch {
    return undefined;
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A tool's name and arguments, null if these have been cut, in a request to call it; null in any other. */
export function toolCall(seen: Seen): { name: string; args: readonly (readonly [string, unknown])[] | null } | null {
  if (seen.method !== "tools/call") return null;
  const body = bodyOf(seen);
  if (body === undefined && seen.cut > 0 && seen.target !== null) return { name: seen.target, args: null };
  if (!isRecord(body) || typeof body.name !== "string") return null;
  return { name: body.name, args: isRecord(body.arguments) ? Object.entries(body.arguments) : [] };
}

/** The content blocks of a result, in their order. */
export function blocks(seen: Seen): readonly unknown[] {
  const body = bodyOf(seen);
  return isRecord(body) && Array.isArray(body.content) ? body.content : [];
}

/** Whether an answer says that something went wrong. */
export function isFailure(seen: Seen): boolean {
  const body = seen.kind === "result" ? bodyOf(seen) : undefined;
  return seen.kind === "error" || (isRecord(body) && body.isError === true);
}

/** JSON for people; what is no JSON as it came. */
export function pretty(seen: Seen): string {
  const body = bodyOf(seen);
  return body === undefined ? seen.body : JSON.stringify(body, null, 2);
}
