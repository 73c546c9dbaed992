/** A real muxsim that serves real environments, and a client that plays on it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EventParser } from "../src/live/sse.ts";

export const ROOT = join(import.meta.dirname, "..", "..");
export const PYTHON = join(ROOT, ".venv", "bin", "python");

/** The program of an environment of the examples. */
export function example(name: string): string {
  return join(ROOT, "examples", name, "server.py");
}

/** The program of one that is there for tests. */
export function forTests(name: string): string {
  return join(ROOT, "tests", "servers", `${name}.py`);
}

/** A new folder with a config of these programs, each by the name of its environment, and a file of `tokens`. */
export async function configured(programs: Readonly<Record<string, string>>, server = "", tokens: readonly string[] = []): Promise<{ folder: string; config: string; tokens: string }> {
  const folder = await mkdtemp(join(tmpdir(), "muxsim-dashboard-"));
  const [config, file] = [join(folder, "muxsim.toml"), join(folder, "tokens")];
  const environments = Object.entries(programs).map(([name, program]) =>
    `[environments.${name}]\ncommand = ${JSON.stringify(program)}\n${program.endsWith(join(name, "server.py")) ? 'args = ["--seed", "{seed}"]\n' : ""}`);
  await writeFile(config, [`[server]\n${server}\n`, ...environments].join("\n"));
  await writeFile(file, tokens.map((line) => `${line}\n`).join(""));
  await chmod(file, 0o600);
  return { folder, config, tokens: file };
}

export class Muxsim {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(url: string, process: ChildProcess) {
    this.url = url;
    this.#process = process;
  }

  static async start(config: string, ...options: string[]): Promise<Muxsim> {
    const process = spawn(PYTHON, ["-m", "muxsim", "serve", config, "--port", "0", ...options], { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    const url = await new Promise<string>((resolve, reject) => {
      const listen = (piece: Buffer): void => {
        said += piece.toString();
        const ready = /is ready on (http:\S+)/.exec(said)?.[1];
        if (ready) resolve(`${ready}/`);
      };
      process.stdout.on("data", listen);
      process.stderr.on("data", listen);
      process.on("exit", () => reject(new Error(said)));
    });
    return new Muxsim(url, process);
  }

  async stop(): Promise<void> {
    this.#process.kill("SIGINT");
    if (this.#process.exitCode === null) await once(this.#process, "exit");
  }

  /** Open a session; its id and URLs. */
  async open(env: string, seed: number, token: string | null = null): Promise<{ id: string; urls: Record<string, string> }> {
    const response = await fetch(`${this.url}sessions`, {
      method: "POST", headers: { "Content-Type": "application/json", ...authorization(token) }, body: JSON.stringify({ env, seed }),
    });
    if (!response.ok) throw new Error(await response.text());
    return await response.json() as { id: string; urls: Record<string, string> };
  }
}

function authorization(token: string | null): Record<string, string> {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** A client of a session, by streamable HTTP. */
export class Player {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  #last = 0;

  private constructor(url: string, token: string | null) {
    this.#url = url;
    this.#headers = { "Content-Type": "application/json", Accept: "application/json, text/event-stream", ...authorization(token) };
  }

  static async join(url: string, token: string | null = null): Promise<Player> {
    const player = new Player(url, token);
    const response = await player.#post({
      jsonrpc: "2.0", id: 0, method: "initialize",
      params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "player", version: "1" } },
    });
    await response.text();
    player.#headers["Mcp-Session-Id"] = response.headers.get("mcp-session-id") ?? "";
    await (await player.#post({ jsonrpc: "2.0", method: "notifications/initialized" })).text();
    return player;
  }

  /** Call a tool; the message that answers. With `asks` the control plane comes with the result. */
  async call(name: string, args: Record<string, unknown>, asks = false): Promise<unknown> {
    const meta = asks ? { _meta: { "muxsim/control": true } } : {};
    const response = await this.#post({ jsonrpc: "2.0", id: ++this.#last, method: "tools/call", params: { name, arguments: args, ...meta } });
    const text = await response.text();
    if (!response.headers.get("content-type")?.includes("event-stream")) return JSON.parse(text);
    return new EventParser().push(text).map(({ data }) => JSON.parse(data) as { id?: number }).find(({ id }) => id === this.#last);
  }

  #post(body: unknown): Promise<Response> {
    return fetch(this.#url, { method: "POST", headers: this.#headers, body: JSON.stringify(body) });
  }
}
