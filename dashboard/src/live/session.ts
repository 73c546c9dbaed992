import { signal } from "@preact/signals";
import type { Control, Ended, Frame, Processes, Seen, Session as Told, SessionEvents, Stderr } from "../feed.ts";
import { follow, type Stream } from "./stream.ts";

// What a page that is open for days keeps of a session.
const MESSAGES = 4000;
const LINES = 5000;
const STEPS = 20_000;
const FRAMES = 300;

/** A picture that has come, as a URL that an `img` takes. */
export interface Picture {
  readonly n: number;
  readonly number: number;
  readonly url: string;
}

/** Pixels only: what is drawn from a program (SVG) is told as text like everything else. */
export const PIXELS = /^image\/(png|jpeg|gif|webp|bmp|avif)$/;

/** A session as its feed tells of it; what it had is kept while the connection is lost. */
export class Session {
  readonly told = signal<Told | null>(null);
  readonly messages = signal<readonly Seen[]>([]);
  readonly control = signal<readonly Control[]>([]);
  readonly stderr = signal<readonly Stderr[]>([]);
  readonly processes = signal<Processes | null>(null);
  readonly pictures = signal<readonly Picture[]>([]);
  readonly ended = signal<Ended | null>(null);
  /** How many events have not come, since this reader was too slow. */
  readonly lost = signal(0);
  /** The number of the last message that came before this connection; 0 while it is the first. */
  readonly before = signal(0);
  /** What came before this has come before: a new connection tells from the beginning of what is kept. */
  #known = 0;
  #latest = 0;

  /** The next events are of a new connection. */
  again(): void {
    this.#known = this.#latest;
    this.before.value = this.messages.value.at(-1)?.n ?? 0;
  }

  apply(name: string, data: unknown): "over" | undefined {
    if (name === "session") this.told.value = data as SessionEvents["session"];
    else if (name === "message") this.#message(data as Seen);
    else if (name === "frame") this.#frame(data as Frame);
    else if (name === "control") this.#add(this.control, data as Control, STEPS);
    else if (name === "stderr") this.#add(this.stderr, data as Stderr, LINES);
    else if (name === "processes") this.processes.value = data as Processes;
    else if (name === "lost") this.lost.value += (data as SessionEvents["lost"]).events;
    else if (name === "ended") {
      this.ended.value = data as Ended;
      return "over";
    }
    if (name === "session" && this.told.value?.ended) this.ended.value = this.told.value.ended;
    return undefined;
  }

  #message(seen: Seen): void {
    const last = this.messages.value.at(-1);
    if (last && seen.n <= last.n) return;
    this.messages.value = [...this.messages.value, seen].slice(-MESSAGES);
  }

  #add<T extends { time: number }>(to: { value: readonly T[] }, one: T, most: number): void {
    if (one.time <= this.#known) return;
    this.#latest = Math.max(this.#latest, one.time);
    to.value = [...to.value, one].slice(-most);
  }

  #frame({ n, image, data }: Frame): void {
    if (!PIXELS.test(image.mime) || this.pictures.value.some((one) => one.number === image.number)) return;
    const picture = { n, number: image.number, url: `data:${image.mime};base64,${data}` };
    this.pictures.value = [...this.pictures.value, picture].slice(-FRAMES);
  }
}

export function path(id: string): string {
  return `./watch/sessions/${encodeURIComponent(id)}`;
}

/** Follow one session. */
export function attend(id: string): { session: Session; stream: Stream } {
  const session = new Session();
  return { session, stream: follow(path(id), (name, data) => session.apply(name, data), () => session.again()) };
}
