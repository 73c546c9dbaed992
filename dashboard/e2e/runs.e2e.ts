/** The pages of runs: the file, several runs served, and one that is being played. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { amiss } from "./axe.ts";
import { type Browser, launch } from "./browser.ts";
import { play, report, Shower } from "./runs.ts";

let folder: string;
let browser: Browser;
let shown: Shower;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "muxsim-runs-"));
  browser = await launch();
  await play(join(folder, "first"), "--env", "frozen_lake", "--rollouts", "6");
  await play(join(folder, "second"), "--env", "frozen_lake", "--rollouts", "7", "--max-steps", "2");
  shown = await Shower.view(join(folder, "first"), join(folder, "second"));
});

afterAll(async () => {
  await shown.stop();
  await browser.close();
  await rm(folder, { recursive: true });
});

const LOOKS = [["light", 1600], ["dark", 360]] as const;

test("two runs stand side by side, differ row by row, and are whole in every look", async () => {
  for (const [theme, width] of LOOKS) {
    const { page, complaints } = await browser.open(shown.url, { theme, width });
    await page.getByRole("heading", { name: "2 runs" }).waitFor();
    const table = await page.locator(".beside").innerText();
    for (const part of ["first", "second", "Reward", "Ends", "Steps", "Tokens", "Time", "options.max_steps"]) expect(table).toContain(part);
    const against = await page.getByRole("region", { name: "second against first" }).innerText();
    for (const part of ["pairs by row", "reward", "Sign test"]) expect(against).toContain(part);
    expect(await amiss(page)).toEqual([]);
    await page.getByRole("link", { name: "The difference" }).click();
    await page.getByRole("heading", { name: "The difference of two runs" }).waitFor();
    await page.getByLabel("Which rows").selectOption("alone");
    expect(await page.locator("tbody tr").count()).toBe(1);
    await page.getByLabel("Which rows").selectOption("all");
    expect(await page.locator("tbody tr").count()).toBe(7);
    expect(await amiss(page)).toEqual([]);
    await page.locator("tbody tr", { hasText: "frozen_lake-0" }).getByRole("link").first().click();
    await page.getByRole("heading", { name: "frozen_lake-0" }).waitFor();
    await page.keyboard.press("ArrowRight");
    await page.locator(".row.step.current").waitFor();
    expect(await amiss(page)).toEqual([]);
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { name: "first", exact: true }).waitFor();
    expect(await amiss(page)).toEqual([]);
    expect(complaints).toEqual([]);
  }
});

test("a run's file shows the same without any server", async () => {
  const file = await report(join(folder, "first"));
  for (const [theme, width] of LOOKS) {
    const { page, complaints } = await browser.open(pathToFileURL(file).href, { theme, width });
    await page.getByRole("link", { name: "frozen_lake-3" }).click();
    await page.getByRole("heading", { name: "frozen_lake-3" }).waitFor();
    expect(await amiss(page)).toEqual([]);
    expect(complaints).toEqual([]);
  }
});

test("a run that another process goes on with is followed", async () => {
  const { page, complaints } = await browser.open(`${shown.url}#/1`);
  await page.getByText("6 episodes", { exact: true }).waitFor();
  const run = ["--env", "frozen_lake", "--rollouts", "9"];
  await play(join(folder, "first"), ...run, "--resume");
  await page.getByText("9 episodes", { exact: true }).waitFor();
  await page.getByText("complete", { exact: true }).waitFor();
  expect(complaints).toEqual([]);
});

test("a rollout is watched while it plays, with the steps of episodes under way, and has its end on the page", async () => {
  const gate = join(folder, "gate");
  const patient = ["--policy", "python:patient:PatientPolicy", "--policy-option", `gate=${gate}`];
  const watched = await Shower.watch(join(folder, "third"), "--env", "lunar_lander", "--rollouts", "3", ...patient);
  const { page, complaints } = await browser.open(watched.url);
  await page.getByRole("heading", { name: "third" }).waitFor();
  await page.getByText("running", { exact: true }).waitFor();
  await page.getByRole("heading", { name: "Playing now" }).waitFor();
  await page.locator(".playing a").first().click();
  await page.locator(".row.step").first().waitFor();
  await page.keyboard.press("End");
  await page.getByText("The episode is being played").waitFor();
  await page.locator(".screen img").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("heading", { name: "Playing now" }).waitFor();
  await writeFile(gate, "");
  expect(await watched.ended()).toBe(0);
  await page.getByText("complete", { exact: true }).waitFor();
  await page.getByText("3 episodes", { exact: true }).waitFor();
  await page.getByText("Nothing answers here any more").waitFor();
  // Whoever asks a server that is gone is told so, by the browser too.
  expect(complaints.filter((one) => !one.includes("ERR_CONNECTION"))).toEqual([]);
});
