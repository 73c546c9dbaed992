/** Real runs: played by the command line, on an environment of the examples, and shown by it. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { PYTHON, ROOT } from "./muxsim.ts";

const CONFIG = join(ROOT, "examples", "muxsim.toml");

/** Play a run to its end. */
export async function play(output: string, ...options: string[]): Promise<void> {
  await promisify(execFile)(PYTHON, ["-m", "muxsim", "rollout", CONFIG, "--output", output, ...options]);
}

/** Write the page of a run; where it is. */
export async function report(run: string): Promise<string> {
  return (await promisify(execFile)(PYTHON, ["-m", "muxsim", "view", run])).stdout.trim();
}

/** A command that shows runs, and the address that it has printed. */
export class Shower {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(url: string, process: ChildProcess) {
    this.url = url;
    this.#process = process;
  }

  static view(...runs: string[]): Promise<Shower> {
    return Shower.#start("view", ...runs, "--serve");
  }

  static watch(output: string, ...options: string[]): Promise<Shower> {
    return Shower.#start("rollout", CONFIG, "--output", output, "--watch", ...options);
  }

  static async #start(...command: string[]): Promise<Shower> {
    const child = spawn(PYTHON, ["-m", "muxsim", ...command], { stdio: ["ignore", "pipe", "pipe"], cwd: join(ROOT, "tests", "servers") });
    let said = "";
    const url = await new Promise<string>((resolve, reject) => {
      const listen = (piece: Buffer): void => {
        said += piece.toString();
        const address = /look at (http:\S+)/.exec(said)?.[1];
        if (address) resolve(address);
      };
      child.stdout.on("data", listen);
      child.stderr.on("data", listen);
      child.on("exit", () => reject(new Error(said)));
    });
    return new Shower(url, child);
  }

  /** Its exit status, once it has come to its end by itself. */
  async ended(): Promise<number | null> {
    if (this.#process.exitCode === null) await once(this.#process, "exit");
    return this.#process.exitCode;
  }

  async stop(): Promise<void> {
    this.#process.kill("SIGINT");
    await this.ended();
  }
}
