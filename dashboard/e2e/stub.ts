/** The server's side of the page, as a test wants it: its files, and feeds that say what they are told to. */
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import type { Environment, Hello, Sample, ServerEvents, Session, SessionEvents, SessionRow } from "../src/feed.ts";

const DIST = join(import.meta.dirname, "..", "dist");
const TYPES: Readonly<Record<string, string>> = { ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
  + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

type Told = readonly [name: string, data: unknown];

export class Stub {
  url = "";
  /** What a reader has to have, if anything. */
  token: string | null = null;
  /** Whether it answers as a proxy does whose server is away. */
  down = false;
  /** Each request so far: method and path. */
  readonly asked: string[] = [];
  /** What every new reader of a feed hears first, by the path. */
  readonly first = new Map<string, Told[]>();
  readonly #open = new Map<string, Set<ServerResponse>>();
  readonly #server = createServer((request, response) => this.#answer(request, response));

  static async start(): Promise<Stub> {
    const stub = new Stub();
    await new Promise<void>((resolve) => stub.#server.listen(0, "127.0.0.1", resolve));
    stub.url = `http://127.0.0.1:${(stub.#server.address() as AddressInfo).port}/`;
    return stub;
  }

  /** Say something to everybody who follows the server. */
  tell<K extends keyof ServerEvents>(name: K, data: ServerEvents[K]): void {
    this.#say("/watch", name, data);
  }

  /** Say something to everybody who follows this session. */
  tellOf<K extends keyof SessionEvents>(id: string, name: K, data: SessionEvents[K]): void {
    this.#say(`/watch/sessions/${id}`, name, data);
  }

  /** End every stream, as a network does. */
  drop(): void {
    for (const streams of this.#open.values()) for (const one of streams) one.destroy();
  }

  async stop(): Promise<void> {
    this.drop();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #say(path: string, name: string, data: unknown): void {
    for (const stream of this.#open.get(path) ?? []) stream.write(event(name, data));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "/").split("?")[0] ?? "/";
    this.asked.push(`${request.method ?? ""} ${path}`);
    if (path === "/") this.#page(response);
    else if (path.startsWith("/ui/") && existsSync(join(DIST, path))) this.#file(response, path, TYPES[extname(path)] ?? "");
    else if (this.down) refuse(response, 502, "there is nobody behind this");
    else if (this.token !== null && request.headers.authorization !== `Bearer ${this.token}`) refuse(response, 401, "this token is not known");
    else if (request.method === "DELETE") response.writeHead(204).end();
    else this.#follow(response, path);
  }

  #follow(response: ServerResponse, path: string): void {
    const first = this.first.get(path);
    if (!first) {
      refuse(response, 404, "there is no such session");
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    for (const [name, data] of first) response.write(event(name, data));
    const streams = this.#open.get(path) ?? new Set();
    this.#open.set(path, streams.add(response));
    response.on("close", () => streams.delete(response));
  }

  #page(response: ServerResponse): void {
    const page = readFileSync(join(DIST, "index.html"), "utf8");
    response.writeHead(200, headers("text/html")).end(this.token === null ? page : page.replace("<html", "<html data-tokens"));
  }

  #file(response: ServerResponse, name: string, type: string): void {
    response.writeHead(200, headers(type));
    createReadStream(join(DIST, name)).pipe(response);
  }
}

function headers(type: string): Record<string, string> {
  return { "content-type": type, "content-security-policy": POLICY, "x-content-type-options": "nosniff" };
}

function event(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ error: { message } }));
}

const now = (): number => Date.now() / 1000;

export const hello = (more: Partial<Hello> = {}): Hello => ({
  name: "muxsim", version: "0.1.0", scope: "admin", principal: null, controls: true, opens: true, ends_all: true, now: now(), ...more,
});

export const environment = (name: string, more: Partial<Environment> = {}): Environment => ({
  name, kind: "python", shared: false, default: false, state: "ok", retry_after: null, live: 0, warm: 0, wanted_warm: 0, waiting: 0,
  starting: 0, opens: 0, failures: 0, starts: { fresh: null, fork: null, slot: null }, memory: null, error: null, ...more,
});

export const row = (id: string, more: Partial<SessionRow> = {}): SessionRow => ({
  id, env: "frozen_lake", seed: 7, owner: null, state: "ready", since: now(), opened: now() - 60, calls: 3, in_flight: 0, end: null,
  failed: false, ...more,
});

export const sample = (more: Partial<Sample> = {}): Sample => ({
  time: now(), sessions: 0, queue: 0, opens: 0, calls: 0, errors: 0, start_p50: null, start_p99: null, call_p50: null, call_p99: null,
  memory: null, ...more,
});

export const snapshot = (more: Partial<ServerEvents["snapshot"]> = {}): ServerEvents["snapshot"] => ({
  environments: [environment("frozen_lake")], sessions: [], counts: null, bounds: [], history: [], ...more,
});

export const session = (id: string, more: Partial<Session> = {}): Session => ({
  id, env: "frozen_lake", seed: 7, owner: null, state: "ready", opened: now() - 60,
  urls: { mcp: `http://127.0.0.1:8000/s/${id}/mcp`, sse: `http://127.0.0.1:8000/s/${id}/sse`, agent_mcp: `http://127.0.0.1:8000/s/${id}/agent/mcp` },
  lease: null, pid: 4242, calls: 3, in_flight: 0, attachments: [], controls: true, may_end: true, history: 0, ended: null, ...more,
});

export const change = (more: Partial<ServerEvents["change"]> = {}): ServerEvents["change"] => ({
  sessions: [], gone: [], counts: null, environments: [], gone_environments: [], bounds: [], ...more,
});
