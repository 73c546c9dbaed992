/** Makes the pictures of the README, and with `PICTURES=<folder>` one of each page there, in both themes and narrow and wide. */
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, test } from "vitest";
import { type Browser, launch, type Look } from "./browser.ts";
import { configured, example, Muxsim, Player, ROOT } from "./muxsim.ts";
import { fly } from "./pilot.ts";
import { play, Shower } from "./runs.ts";

const README = join(ROOT, "docs", "images");
const everywhere = process.env.PICTURES;
const LOOKS = (["light", "dark"] as const).flatMap((theme) => [360, 1600].map((width): Required<Look> => ({ theme, width, height: 1000 })));

const PROGRAMS = Object.fromEntries(["frozen_lake", "cliff_walking", "blackjack", "lunar_lander"].map((name) => [name, example(name)]));
// Sessions of each, seconds for which they play, and burns of the lander until it is near the ground.
const EACH = 14;
const SECONDS = 50;
const BURNS = 30;

let browser: Browser;
let muxsim: Muxsim;
let folder: string;
beforeAll(async () => {
  const made = await configured({ ...PROGRAMS, treasure_grid: join(ROOT, "js_servers", "treasure-grid"), maze: join(ROOT, "missing", "server.py") }, "history = 50\nmax_sessions = 34\nmax_starting = 3");
  folder = made.folder;
  [muxsim, browser] = await Promise.all([Muxsim.start(made.config), launch()]);
  if (everywhere) await mkdir(everywhere, { recursive: true });
});
afterAll(async () => {
  await Promise.all([muxsim.stop(), browser.close()]);
  await rm(folder, { recursive: true });
});

/** A picture of `url` once `ready` has had its way with it. */
async function picture(file: string, url: string, look: Look, ready: (page: Page) => Promise<unknown>): Promise<void> {
  const { page } = await browser.open(url, look);
  await ready(page);
  await page.screenshot({ path: file, animations: "disabled" });
  await page.close();
}

async function all(name: string, url: string, ready: (page: Page) => Promise<unknown>): Promise<void> {
  if (!everywhere) return;
  for (const look of LOOKS) await picture(join(everywhere, `${name}-${look.theme}-${look.width}.png`), url, look, ready);
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => { setTimeout(resolve, ms); });

/** One session after the other, each with calls of any kind until it has had enough, until the time is over. */
async function wander(env: string, seed: number, until: number): Promise<void> {
  await wait(1500 * seed);
  const calls = WANDERERS[env] ?? [];
  for (let episode = seed; Date.now() < until; episode += EACH) {
    const opened = await muxsim.open(env, episode).catch(() => null); // it may have waited too long
    if (opened === null) return;
    const { id, urls } = opened;
    const player = await Player.join(urls.mcp ?? "");
    for (let step = 0; step < 40 + 9 * seed && Date.now() < until; step++) {
      const [tool, args] = calls[(seed + step) % calls.length] ?? ["", {}];
      await player.call(tool, args, true);
      await wait(60 + 40 * (seed % 9));
    }
    await fetch(`${muxsim.url}sessions/${id}`, { method: "DELETE" });
  }
}

const WANDERERS: Readonly<Record<string, readonly (readonly [string, Record<string, unknown>])[]>> = {
  frozen_lake: ["RIGHT", "DOWN", "LEFT", "UP"].map((action) => ["lake_move", { action }]),
  cliff_walking: ["UP", "RIGHT", "RIGHT", "DOWN"].map((action) => ["step", { action }]),
  blackjack: ["HIT", "STICK"].map((action) => ["step", { action }]),
};

async function looksAtOverview(page: Page): Promise<void> {
  await page.locator(".charts canvas").nth(5).waitFor();
}

async function looksAtSession(page: Page): Promise<void> {
  await page.getByRole("heading", { name: "Control plane" }).waitFor();
  await page.locator(".row").first().waitFor();
}

test("the overview, while its environments are played", async () => {
  const until = Date.now() + SECONDS * 1000;
  const over = Object.keys(WANDERERS).flatMap((env) => Array.from({ length: EACH }, (_, seed) => wander(env, seed, until)));
  await picture(join(README, "overview.png"), muxsim.url, { theme: "light", width: 1600, height: 1000 }, async (page) => {
    await wait(Math.max(0, until - Date.now() - 3000));
    await looksAtOverview(page);
  });
  if (everywhere) await muxsim.open("maze", 0).catch(() => undefined);
  await all("overview", muxsim.url, looksAtOverview);
  await Promise.all(over);
});

test("a lunar lander, and a frozen lake", async () => {
  const lander = await muxsim.open("lunar_lander", 11);
  const lake = await muxsim.open("frozen_lake", 7);
  await fly(await Player.join(lander.urls.mcp ?? ""), BURNS);
  const walker = await Player.join(lake.urls.mcp ?? "");
  for (const action of ["DOWN", "DOWN", "RIGHT", "RIGHT", "DOWN", "RIGHT"]) await walker.call("lake_move", { action }, true);
  const url = `${muxsim.url}#/session/${lander.id}`;
  await picture(join(README, "session.png"), url, { theme: "dark", width: 1600, height: 1000 }, async (page) => {
    await looksAtSession(page);
    await page.locator(".screen img").waitFor();
  });
  await all("lander", url, looksAtSession);
  await all("lake", `${muxsim.url}#/session/${lake.id}`, looksAtSession);
});

test("the playground", async () => {
  await all("playground", `${muxsim.url}#/playground`, async (page) => {
    await page.getByLabel("Environment").selectOption("lunar_lander");
    await page.getByRole("button", { name: "Open", exact: true }).click();
    await page.getByRole("form").waitFor();
    await page.getByRole("button", { name: "Call fire" }).click();
    await page.locator(".row .result").first().waitFor();
  });
});

test("signing in", async () => {
  if (!everywhere) return;
  const made = await configured(PROGRAMS, "", [`lab trainer ${"trainer-".repeat(5)}`]);
  const guarded = await Muxsim.start(made.config, "--tokens-file", made.tokens);
  muxsim = await swapped(guarded);
  await all("sign-in", guarded.url, (page) => page.getByLabel("Token").waitFor());
  await rm(made.folder, { recursive: true });
});

/** Stop the one that has been served so far, and have `next` stopped at the end. */
async function swapped(next: Muxsim): Promise<Muxsim> {
  await muxsim.stop();
  return next;
}

test("runs, and several side by side", async () => {
  if (!everywhere) return;
  const runs = ["one", "other"].map((name) => join(folder, name));
  for (const [place, run] of runs.entries()) await play(run, "--env", "cliff_walking", "--rollouts", "24", "--max-steps", `${8 + 6 * place}`);
  for (const [name, shown] of [["runs", runs.slice(0, 1)], ["compare", runs]] as const) {
    const shower = await Shower.view(...shown);
    await all(name, shower.url, (page) => page.locator("main, .page").first().waitFor());
    await shower.stop();
  }
});
