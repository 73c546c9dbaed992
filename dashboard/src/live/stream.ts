import { batch, type ReadonlySignal, signal } from "@preact/signals";
import { ask, reason, token, wanted } from "../access.ts";
import { EventParser } from "./sse.ts";

/** How a stream is: what is shown is what came last, whichever it is. */
export type Connection =
  | { readonly is: "connecting" }
  | { readonly is: "open" }
  | { readonly is: "lost"; readonly why: string; readonly retryAt: number }
  | { readonly is: "refused"; readonly why: string; readonly status: number }
  | { readonly is: "over" };

export interface Stream {
  readonly connection: ReadonlySignal<Connection>;
  /** Try again now, if it waits for that. */
  retry: () => void;
  stop: () => void;
}

// Milliseconds. The server says something at least every 15 s, and be it a ping.
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15_000;
const SILENCE = 45_000;

/** How long to wait before the attempt after so many failures; `chance` in [0, 1) keeps a herd of readers apart. */
export function backOff(failures: number, chance: number): number {
  return Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures) * (0.75 + chance / 2);
}

/** What is done with an event. */
type Heard = (name: string, data: unknown) => "over" | undefined;

/**
 * Follow a stream of events and hand each to `heard`, again after every loss, until it is stopped, refused (a status
 * from 400 to 499), or `heard` returns "over"; `began` is called before the first event of each connection.
 */
export function follow(path: string, heard: Heard, began: () => void = () => undefined): Stream {
  const connection = signal<Connection>({ is: "connecting" });
  const stopping = new AbortController();
  let wake = (): void => undefined;

  const run = async (): Promise<void> => {
    let failures = 0;
    for (;;) {
      const why = await read(path, stopping.signal, heard, () => {
        failures = 0;
        connection.value = { is: "open" };
        began();
      });
      if (stopping.signal.aborted) return;
      if (typeof why !== "string") {
        connection.value = why;
        return;
      }
      const wait = backOff(failures++, Math.random());
      connection.value = { is: "lost", why, retryAt: Date.now() + wait };
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, wait);
      });
    }
  };
  void run();
  return { connection, retry: () => wake(), stop: () => { stopping.abort(); wake(); } };
}

/** Read it once: why it was lost, or how it has come to its end. */
async function read(path: string, stopped: AbortSignal, heard: Heard, began: () => void): Promise<string | Connection> {
  const giveUp = new AbortController();
  const given = AbortSignal.any([stopped, giveUp.signal]);
  let silence = setTimeout(() => giveUp.abort(), SILENCE);
  try {
    const response = await ask(path, { headers: { Accept: "text/event-stream" }, signal: given });
    if (!response.ok || !response.body) return await refused(response);
    const parser = new EventParser();
    began();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return "the server has ended the stream";
      clearTimeout(silence);
      silence = setTimeout(() => giveUp.abort(), SILENCE);
      // What comes together is shown together.
      const over = batch(() => parser.push(value).some(({ name, data }) => heard(name, JSON.parse(data)) === "over"));
      if (over) return { is: "over" };
    }
  } catch (error) {
    return giveUp.signal.aborted ? "the server has been silent" : error instanceof Error ? error.message : "no connection";
  } finally {
    clearTimeout(silence);
    giveUp.abort();
  }
}

async function refused(response: Response): Promise<string | Connection> {
  const why = await reason(response);
  // A server in trouble may be better in a moment; one that does not want us will not.
  if (response.status >= 500 || response.status === 429) return why;
  if (response.status === 401) wanted.value = token.value === null ? "" : why;
  return { is: "refused", why, status: response.status };
}
