import { signal } from "@preact/signals";
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { config } from "zod";
import { ask, reason, token } from "../access.ts";
import { PIXELS } from "../live/session.ts";
import { Raw, type Value, written } from "./draft.ts";
import { isRecord } from "./schema.ts";

// The page's policy lets nobody make code of strings, and its browser would complain of whoever tries.
config({ jitless: true });

/** A tool as a server tells of it; its schema may be anything. */
export interface Tool {
  readonly name: string;
  readonly description: string;
  readonly inputSchema: unknown;
}

export type Wire = "http" | "sse";

/** How a call came to its end, where the session's own page does not show it. */
export type Outcome = { readonly is: "done" } | { readonly is: "failed"; readonly why: string };

// Milliseconds; a server that says how far it is has it anew each time.
const LONGEST_CALL = 600_000;
const MOST_PAGES = 100;
const CONTROL = "muxsim/control";

/**
 * Takes a result as it is. A server may say what no protocol knows, of its tools too: the page shows what there is, and one
 * tool that is beside the rules does not hide the others.
 */
const AS_IT_IS = { "~standard": { version: 1, vendor: "muxsim", validate: (value: unknown) => ({ value }) } } as const;

/** A part of what is to be seen: a text, or a picture as a URL that an `img` takes. */
export type Shown = { readonly text: string } | { readonly image: string };

const BASE64 = /^[A-Za-z0-9+/]+=*$/;

/** What an observation shows: a text, MCP's content blocks, or else JSON. */
function shownOf(observation: unknown): readonly Shown[] | null {
  if (observation === undefined || observation === null) return null;
  if (!Array.isArray(observation)) return [{ text: typeof observation === "string" ? observation : JSON.stringify(observation, null, 2) }];
  return observation.map((block: unknown) => {
    if (isRecord(block) && block.type === "text" && typeof block.text === "string") return { text: block.text };
    const { mimeType, data } = isRecord(block) ? block : {};
    const pixels = typeof mimeType === "string" && PIXELS.test(mimeType) && typeof data === "string" && BASE64.test(data);
    return pixels ? { image: `data:${mimeType};base64,${data}` } : { text: JSON.stringify(block, null, 2) };
  });
}

/** What has gone wrong, for people: an answer of HTTP may stand in it as JSON, of which only the message is for them. */
export function spoken(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const begin = text.indexOf("{");
  try {
    const said: unknown = begin < 0 ? null : JSON.parse(text.slice(begin));
    const fault = isRecord(said) ? said.error ?? said : null;
    return isRecord(fault) && typeof fault.message === "string" ? fault.message : typeof fault === "string" ? fault : text;
  } catch {
    return text;
  }
}

/** A session that this page has opened, and is a client of. */
export class Play {
  readonly tools = signal<readonly Tool[]>([]);
  /** Why there is no connection any more; "" while there is one. */
  readonly lost = signal("");
  /** What there is to be seen before the first call, of an environment that says so; null of any other. */
  readonly start = signal<readonly Shown[] | null>(null);
  readonly id: string;
  readonly #client: Client;
  readonly #raw = new RawTexts();
  readonly #withControl: boolean;
  #over = false;

  private constructor(id: string, withControl: boolean) {
    this.id = id;
    this.#withControl = withControl;
    this.#client = new Client({ name: "muxsim-playground", version: "1" });
    this.#client.onclose = () => { if (!this.#over) this.lost.value = "the connection is closed"; };
    this.#client.setNotificationHandler("notifications/tools/list_changed", () => this.#list());
  }

  /** Open a session and shake hands with it; `withControl` asks for the control plane with each call. */
  static async open(env: string, seed: string, wire: Wire, withControl: boolean): Promise<Play> {
    const wish: Value = { env, ...(seed ? { seed: new Raw(seed) } : {}) };
    const response = await ask("./sessions", { method: "POST", headers: { "Content-Type": "application/json" }, body: written(wish) });
    if (!response.ok) throw new Error(await reason(response));
    const { id, urls } = await response.json() as { id: string; urls: Readonly<Record<string, string>> };
    const play = new Play(id, withControl);
    try {
      await play.#connect(wire, urls);
      await play.#list();
      if (withControl) await play.#look();
    } catch (error) {
      await play.end();
      throw error;
    }
    return play;
  }

  /** Call a tool. The session's page shows what came of it. */
  async call(name: string, args: Value, stop: AbortSignal): Promise<Outcome> {
    const meta = this.#withControl ? { _meta: { [CONTROL]: true } } : {};
    try {
      const params = { name, arguments: this.#raw.kept(args), ...meta };
      await this.#client.request({ method: "tools/call", params }, AS_IT_IS, { signal: stop, timeout: LONGEST_CALL, resetTimeoutOnProgress: true, onprogress: () => undefined });
      return { is: "done" };
    } catch (error) {
      return { is: "failed", why: spoken(error) };
    }
  }

  /** End the session, also while the page goes. */
  async end(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    const ended = ask(`./sessions/${encodeURIComponent(this.id)}`, { method: "DELETE", keepalive: true }).catch(() => undefined);
    await this.#client.close().catch(() => undefined);
    await ended;
  }

  async #connect(wire: Wire, urls: Readonly<Record<string, string>>): Promise<void> {
    // By the way that the page itself has come, whatever the server is called elsewhere.
    const agent = urls.mcp === undefined && urls.agent_mcp !== undefined;
    const url = (path: string): URL => new URL(`./s/${encodeURIComponent(this.id)}/${agent ? "agent/" : ""}${path}`, document.baseURI);
    const fetching = (input: string | URL, init?: RequestInit): Promise<Response> => this.#fetch(input, init);
    const transport = wire === "http"
      ? new StreamableHTTPClientTransport(url("mcp"), { fetch: fetching })
      // eslint-disable-next-line @typescript-eslint/no-deprecated -- it is what is to be tried here
      : new SSEClientTransport(url("sse"), { fetch: fetching });
    await this.#client.connect(transport);
  }

  #fetch(input: string | URL, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (token.value !== null) headers.set("Authorization", `Bearer ${token.value}`);
    const body = typeof init.body === "string" ? { body: this.#raw.restored(init.body) } : {};
    return fetch(input, { ...init, ...body, headers, credentials: "omit", cache: "no-store", redirect: "error" });
  }

  /** The initial state is of the control plane: agents are told of it by whoever trains them. */
  async #look(): Promise<void> {
    try {
      const { contents } = await this.#client.readResource({ uri: "control://initial_state" });
      const text = contents.map((one) => ("text" in one ? one.text : "")).join("");
      this.start.value = shownOf((JSON.parse(text) as { observation?: unknown }).observation);
    } catch {
      this.start.value = null; // it has none
    }
  }

  async #list(): Promise<void> {
    const tools: Tool[] = [];
    let cursor: string | undefined;
    for (let page = 0; page < MOST_PAGES; page++) {
      const params = cursor === undefined ? {} : { cursor };
      const told = await this.#client.request({ method: "tools/list", params }, AS_IT_IS);
      const { tools: more, nextCursor } = isRecord(told) ? told : {};
      tools.push(...(Array.isArray(more) ? more.map(toolOf).filter((tool) => tool !== null) : []));
      cursor = typeof nextCursor === "string" ? nextCursor : undefined;
      if (cursor === undefined) break;
    }
    this.tools.value = tools;
  }
}

function toolOf(told: unknown): Tool | null {
  if (!isRecord(told) || typeof told.name !== "string") return null;
  const { name, description, inputSchema } = told;
  return { name, description: typeof description === "string" ? description : "", inputSchema };
}

/** Keeps raw JSON texts apart while a value goes through the client, which would make other numbers of them. */
class RawTexts {
  readonly #mark = crypto.randomUUID();
  readonly #texts: string[] = [];

  kept(value: Value): unknown {
    if (value instanceof Raw) return `${this.#mark}:${this.#texts.push(value.text) - 1}`;
    if (Array.isArray(value)) return value.map((one) => this.kept(one));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, this.kept(one)]));
  }

  restored(body: string): string {
    if (!this.#texts.length) return body;
    return body.replace(new RegExp(`"${this.#mark}:(\\d+)"`, "g"), (_, place: string) => this.#texts[Number(place)] ?? "null");
  }
}
