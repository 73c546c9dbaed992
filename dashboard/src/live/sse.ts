/** One event of a stream. */
export interface ServerSentEvent {
  readonly name: string;
  readonly data: string;
}

/** Cuts a stream of server-sent events into its events, whatever pieces it comes in. */
export class EventParser {
  #rest = "";
  #name = "";
  #data: string[] = [];

  /** The events that end in this piece. */
  push(piece: string): ServerSentEvent[] {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    return lines.map((line) => this.#line(line)).filter((event) => event !== null);
  }

  #line(line: string): ServerSentEvent | null {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
    return null;
  }

  #dispatch(): ServerSentEvent | null {
    const event = { name: this.#name || "message", data: this.#data.join("\n") };
    const given = this.#data.length > 0;
    this.#name = "";
    this.#data = [];
    return given ? event : null;
  }
}
