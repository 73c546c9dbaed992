import { batch, signal } from "@preact/signals";
import { type Bound, type Count, type Environment, type Hello, SAMPLES, type Sample, type ServerEvents, type SessionRow } from "../feed.ts";
import { follow, type Stream } from "./stream.ts";

/** The server as its feed tells of it; what it had is kept while the connection is lost. */
export class Server {
  readonly hello = signal<Hello | null>(null);
  readonly environments = signal<readonly Environment[]>([]);
  /** By id, in the order of their opening. */
  readonly #sessions = new Map<string, SessionRow>();
  /** Turns whenever one of them is different. */
  readonly #turn = signal(0);
  /** In place of sessions that are too many to be listed. */
  readonly counts = signal<readonly Count[] | null>(null);
  readonly bounds = signal<readonly Bound[]>([]);
  readonly history = signal<readonly Sample[]>([]);
  /** Whether a snapshot has come, so that what is not there does not exist. */
  readonly known = signal(false);
  #behind = 0;

  /** The server's time, in seconds. */
  now(): number {
    return Date.now() / 1000 + this.#behind;
  }

  /** Every session, the oldest first; who reads it in a component is drawn again when one is different. */
  rows(): readonly SessionRow[] {
    return this.#turn.value < 0 ? [] : [...this.#sessions.values()];
  }

  /** Whether the reader may open sessions that are listed: who only monitors knows no whole id. */
  looksInto(): boolean {
    return this.hello.value?.opens !== false;
  }

  apply(name: string, data: unknown): undefined {
    batch(() => {
      if (name === "hello") this.#greet(data as ServerEvents["hello"]);
      else if (name === "snapshot") this.#begin(data as ServerEvents["snapshot"]);
      else if (name === "change") this.#change(data as ServerEvents["change"]);
      else if (name === "sample") this.history.value = [...this.history.value, data as Sample].slice(-SAMPLES);
    });
  }

  forget(): void {
    batch(() => {
      this.#begin({ environments: [], sessions: [], counts: null, bounds: [], history: [] });
      this.hello.value = null;
      this.known.value = false;
    });
  }

  #greet(hello: Hello): void {
    this.#behind = hello.now - Date.now() / 1000;
    this.hello.value = hello;
  }

  #begin({ environments, sessions, counts, bounds, history }: ServerEvents["snapshot"]): void {
    this.environments.value = environments;
    this.#sessions.clear();
    this.#put(sessions);
    this.counts.value = counts;
    this.bounds.value = bounds;
    this.history.value = history;
    this.known.value = true;
  }

  #change({ sessions, gone, counts, environments, gone_environments: lost, bounds }: ServerEvents["change"]): void {
    for (const id of gone) this.#sessions.delete(id);
    if (sessions.length + gone.length) this.#put(sessions);
    if (counts) this.counts.value = counts;
    if (environments.length + lost.length) {
      this.environments.value = replaced(this.environments.value, environments, (one) => one.name).filter(({ name }) => !lost.includes(name));
    }
    if (bounds.length) this.bounds.value = replaced(this.bounds.value, bounds, (one) => one.setting);
  }

  #put(rows: readonly SessionRow[]): void {
    for (const row of rows) this.#sessions.set(row.id, row);
    this.#turn.value++;
  }
}

/** `all` with those of `changed` in the places of the ones of the same key, and new ones behind. */
function replaced<T>(all: readonly T[], changed: readonly T[], key: (one: T) => string): T[] {
  const byKey = new Map(all.map((one) => [key(one), one]));
  for (const one of changed) byKey.set(key(one), one);
  return [...byKey.values()];
}

export const server = new Server();

/** The stream that tells of the server; null before the first one. */
export const watching = signal<Stream | null>(null);

/** Follow the server from now on as whoever the reader is now; what somebody else has seen is forgotten. */
export function watch(): void {
  watching.value?.stop();
  server.forget();
  watching.value = follow("./watch", (name, data) => server.apply(name, data));
}
