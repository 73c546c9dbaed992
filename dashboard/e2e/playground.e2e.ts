/** The playground on a real muxsim: it opens sessions, plays them by their forms, and leaves nothing behind. */
import { rm } from "node:fs/promises";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { amiss } from "./axe.ts";
import { type Browser, launch } from "./browser.ts";
import { configured, example, forTests, Muxsim } from "./muxsim.ts";

const TRAINER = "trainer-".repeat(5);
const MONITOR = "monitor-".repeat(5);

let folder: string;
let browser: Browser;
let open: Muxsim;
let guarded: Muxsim;

beforeAll(async () => {
  const made = await configured(
    { frozen_lake: example("frozen_lake"), lunar_lander: example("lunar_lander"), absurd: forTests("absurd") }, "",
    [`lab trainer ${TRAINER}`, `board monitor ${MONITOR}`],
  );
  folder = made.folder;
  [open, guarded, browser] = await Promise.all([Muxsim.start(made.config), Muxsim.start(made.config, "--tokens-file", made.tokens), launch()]);
});

afterAll(async () => {
  await Promise.all([open.stop(), guarded.stop(), browser.close()]);
  await rm(folder, { recursive: true });
});

const MOVES: Readonly<Record<string, readonly [number, number]>> = { LEFT: [0, -1], DOWN: [1, 0], RIGHT: [0, 1], UP: [-1, 0] };

/** The moves from the start to the goal of a lake that a page shows. */
function wayThrough(map: string): string[] {
  const rows = map.split("\n").map((line) => line.match(/[SFHG]/g) ?? []).filter((cells) => cells.length >= 4);
  const seen = new Set(["0,0"]);
  const ahead: { at: [number, number]; way: string[] }[] = [{ at: [0, 0], way: [] }];
  for (let here = ahead.shift(); here; here = ahead.shift()) {
    const { at: [row, column], way } = here;
    if (rows[row]?.[column] === "G") return way;
    for (const [name, [down, right]] of Object.entries(MOVES)) {
      const at: [number, number] = [row + down, column + right];
      const cell = rows[at[0]]?.[at[1]];
      if (cell === undefined || cell === "H" || seen.has(at.join())) continue;
      seen.add(at.join());
      ahead.push({ at, way: [...way, name] });
    }
  }
  throw new Error(`there is no way through\n${map}`);
}

async function opened(page: Page, env: string, wire: string): Promise<void> {
  await page.getByLabel("Environment").selectOption(env);
  await page.getByLabel("Transport").selectOption(wire);
  await page.getByRole("button", { name: "Open", exact: true }).click();
  await page.getByRole("form").waitFor();
}

async function sessions(muxsim: Muxsim): Promise<number> {
  const response = await fetch(`${muxsim.url}sessions`, { headers: { Accept: "application/json" } });
  return ((await response.json()) as { sessions: unknown[] }).sessions.length;
}

test.each([["http", "light", 1600], ["sse", "dark", 360]] as const)("FrozenLake is played to its goal over %s", async (wire, theme, width) => {
  const { page, complaints } = await browser.open(`${open.url}#/playground`, { theme, width });
  await page.getByRole("heading", { name: "Open a session" }).waitFor();
  expect(await amiss(page)).toEqual([]);
  await opened(page, "frozen_lake", wire);
  const way = wayThrough(await page.locator(".start pre").innerText());
  for (const [step, move] of way.entries()) {
    await page.getByLabel("action").selectOption(move);
    await page.getByRole("button", { name: "Call lake_move" }).click();
    await page.locator(".row .result").nth(step).waitFor();
  }
  await page.locator(".plane .score").getByText("terminated").waitFor();
  expect(await page.locator(".plane .score b").innerText()).toBe("1");
  expect(await amiss(page)).toEqual([]);
  await page.getByRole("link", { name: "Overview", exact: true }).first().click();
  await expect.poll(() => sessions(open), { timeout: 60_000 }).toBe(0);
  expect(complaints).toEqual([]);
});

test("a visual environment shows its picture", async () => {
  const { page, complaints } = await browser.open(`${open.url}#/playground`, { theme: "dark", width: 1600 });
  await opened(page, "lunar_lander", "http");
  await page.getByLabel("give frames").check();
  await page.getByLabel("frames", { exact: true }).fill("99");
  await page.getByRole("button", { name: "Call fire" }).click();
  await page.getByText("at least 1, at most 50", { exact: true }).waitFor();
  await page.getByLabel("frames", { exact: true }).fill("4");
  await page.getByRole("button", { name: "Call fire" }).click();
  const picture = page.locator(".player .screen img");
  await picture.waitFor();
  expect(await picture.evaluate((image: HTMLImageElement) => image.decode().then(() => image.naturalWidth))).toBeGreaterThan(100);
  expect(await amiss(page)).toEqual([]);
  await page.close(); // which ends the session, too
  await expect.poll(() => sessions(open), { timeout: 60_000 }).toBe(0);
  expect(complaints).toEqual([]);
});

test("absurd schemas do no harm, and whole numbers arrive as they were written", async () => {
  const { page, complaints } = await browser.open(`${open.url}#/playground`);
  await opened(page, "absurd", "http");
  for (const name of ["endless", "nonsense", "wide", "<img src=x onerror=window.owned=1>"]) {
    await page.getByRole("button", { name, exact: true }).first().click();
    await page.getByRole("button", { name: `Call ${name}` }).waitFor();
  }
  await page.getByRole("button", { name: "echo", exact: true }).click();
  await page.getByLabel("number", { exact: true }).fill("12345678901234567890123");
  await page.getByRole("button", { name: "Call echo" }).click();
  await page.locator(".row .result").getByText('{"number": 12345678901234567890123}').waitFor();
  await page.getByLabel("as JSON").check();
  await page.getByLabel("arguments").fill('{"number": 98765432109876543210}');
  await page.getByRole("button", { name: "Call echo" }).click();
  await page.locator(".row .result").getByText('{"number": 98765432109876543210}').waitFor();
  expect(await page.evaluate("window.owned")).toBe(undefined);
  expect(complaints).toEqual([]);
});

test("whoever signs in with a trainer's token plays, and a monitor may only look", async () => {
  const { page, complaints } = await browser.open(`${guarded.url}#/playground`);
  await page.getByLabel("Token").fill(TRAINER);
  await page.getByRole("button", { name: "Sign in" }).click();
  await opened(page, "frozen_lake", "sse");
  await page.getByRole("button", { name: "Call lake_move" }).click();
  await page.locator(".row .result").first().waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").fill(MONITOR);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("Who may only look cannot open sessions.").waitFor();
  expect(complaints).toEqual([]);
});
