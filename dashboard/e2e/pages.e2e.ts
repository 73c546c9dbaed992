/** The pages against a server that says what a test wants: what is rare, hostile, or too much to be started here. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import type { SessionRow } from "../src/feed.ts";
import { amiss } from "./axe.ts";
import { type Browser, launch } from "./browser.ts";
import { change, environment, hello, row, sample, session, snapshot, Stub } from "./stub.ts";

const HOSTILE = '</script><script>window.owned = 1</script><img src="x" onerror="window.owned = 1"><svg onload="window.owned = 1">';
const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEklEQVR4nGNgYGD4z8DAwMAAAA4EAQGbhCK+AAAAAElFTkSuQmCC";

let browser: Browser;
let stub: Stub;
beforeAll(async () => { browser = await launch(); });
afterAll(async () => { await browser.close(); });
beforeEach(async () => { stub = await Stub.start(); });
afterEach(async () => { await stub.stop(); });

function serve(more: Parameters<typeof snapshot>[0] = {}, as: Parameters<typeof hello>[0] = {}): void {
  stub.first.set("/watch", [["hello", hello(as)], ["snapshot", snapshot(more)]]);
}

/** A session in which every text that somebody else has a say in is `text`. */
function conversation(id: string, text: string, controls = true): void {
  const seen = { time: 1, attachment: 1, cut: 0, seconds: null, images: [] };
  const result = { content: [{ type: "text", text }, { type: text }, { type: "image" }], structuredContent: { [text]: text } };
  const image = { number: 1, mime: "image/png", bytes: 90, block: 2 };
  stub.first.set(`/watch/sessions/${id}`, [
    ["session", session(id, { env: text, owner: text, controls, attachments: [{ number: 1, transport: text, name: text, is_agent: true }], urls: { mcp: text, [text]: text } })],
    ["message", { ...seen, n: 1, from: "client", kind: "request", method: "tools/call", id: "1", body: JSON.stringify({ name: text, arguments: { [text]: text } }) }],
    ["message", { ...seen, n: 2, from: "server", kind: "notification", method: "notifications/progress", id: null, body: JSON.stringify({ progress: 1, total: 4, message: text }) }],
    ["message", { ...seen, n: 3, from: "server", kind: "notification", method: "notifications/message", id: null, body: JSON.stringify({ level: text, logger: text, data: text }) }],
    ["message", { ...seen, n: 4, from: "server", kind: "request", method: text, id: "2", body: JSON.stringify({ text }) }],
    ["message", { ...seen, n: 5, from: "client", kind: "error", method: text, id: "2", body: JSON.stringify({ code: 1, message: text }) }],
    ["message", { ...seen, n: 6, from: "server", kind: "result", method: "tools/call", id: "1", seconds: 0.01, body: JSON.stringify(result), images: [image] }],
    ["frame", { n: 6, image, data: PIXEL }],
    ...(controls ? [
      ["control", { time: 2, n: 6, step: 1, reward: 1, total: 1, terminated: true, truncated: false, info: JSON.stringify({ [text]: text }), problem: text }],
      ["control", { time: 3, n: 6, step: 2, reward: null, total: 1, terminated: true, truncated: true, info: null, problem: null }],
      ["stderr", { time: 2, line: text }],
      ["processes", { time: 2, processes: [{ pid: 4, parent: 1, command: text, memory: 5e7, cpu: 0.5 }] }],
    ] as const : []),
    ["ended", { time: 4, cause: text, text, exit_status: 1, stderr: [text], failed: true }],
  ]);
}

function troubled(text: string): Parameters<typeof snapshot>[0] {
  return {
    environments: [environment(text, { state: "failed", error: { time: 1, text, stderr: [text] } }), environment("lake", { waiting: 2, starts: { fork: 0.009, fresh: 0.6, slot: null } })],
    sessions: [row("a", { env: text, owner: text, end: text, state: "ended", failed: true }), row("b", { in_flight: 1 }), row("c", { state: "opening" })],
    bounds: [{ setting: text, met: 2, last: 1 }],
    history: [1, 2, 3].map((place) => sample({ time: Date.now() / 1000 - 40 + place * 10, sessions: place, call_p50: 0.001, call_p99: 0.004 })),
  };
}

test("what others say is text, everywhere", async () => {
  serve(troubled(HOSTILE));
  conversation("a", HOSTILE);
  const { page, complaints } = await browser.open(stub.url);
  await page.getByRole("heading", { name: HOSTILE }).waitFor();
  await page.getByRole("button", { name: "Table" }).click();
  await page.getByRole("link", { name: "a", exact: true }).click();
  await page.getByRole("heading", { name: /^Ended/ }).waitFor();
  for (const place of [".story .tool", ".story .result pre", ".story .notice", ".stderr", ".alert", ".unseen", ".lines"]) {
    expect(await page.locator(place).first().innerText()).toContain("onerror");
  }
  expect(await page.locator(".story").innerText()).toContain(HOSTILE);
  stub.first.set("/watch/sessions/b", [
    ["session", session("b", { env: HOSTILE })],
    ["processes", { time: 2, processes: [{ pid: 4, parent: 1, command: HOSTILE, memory: 5e7, cpu: 0.5 }] }],
  ]);
  await page.goto(`${stub.url}#/session/b`);
  expect(await page.locator(".side table").first().innerText()).toContain("onerror");
  expect(await page.evaluate("window.owned")).toBeUndefined();
  expect(await page.locator("script, iframe, object, embed, img[src='x']").count()).toBe(1); // the page's own script
  expect(complaints).toEqual([]);
});

test("the first token is asked for, a wrong one is refused with a reason, and a right one is kept in memory only", async () => {
  serve({}, { principal: "ops" });
  stub.token = "right";
  const { page, complaints } = await browser.open(stub.url);
  await page.getByLabel("Token").waitFor();
  expect(complaints).toEqual([]); // nothing has been asked for that is refused
  await page.getByLabel("Token").fill("wrong");
  await page.keyboard.press("Enter");
  await page.getByText("this token is not known").waitFor();
  await page.getByLabel("Token").fill("right");
  await page.keyboard.press("Enter");
  await page.getByText("ops, admin").waitFor();
  expect(await page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage), document.cookie, location.href].join().includes('right')")).toBe(false);
  await page.reload();
  await page.getByLabel("Token").waitFor();
});

test("a lost connection is said, what was there stays, and it comes back by itself", async () => {
  serve({ sessions: [row("first")] });
  const { page } = await browser.open(stub.url);
  await page.getByText("idle 1").waitFor();
  stub.down = true;
  stub.drop();
  await page.getByRole("heading", { name: /connection for the overview is lost/ }).waitFor();
  await page.getByText("not connected").waitFor();
  expect(await page.getByText("idle 1").isVisible()).toBe(true);
  stub.down = false;
  await page.getByRole("heading", { name: /connection for the overview is lost/ }).waitFor({ state: "detached" });
  await page.getByText("live", { exact: true }).first().waitFor();
});

test("who may not see rewards sees none, and may end nothing that is not its own", async () => {
  serve({ sessions: [row("a")] }, { scope: "agent", controls: false, ends_all: false });
  conversation("a", "plain", false);
  const { page } = await browser.open(`${stub.url}#/session/a`);
  await page.getByRole("heading", { name: /^Ended/ }).waitFor();
  expect(await page.locator("body").innerText()).not.toMatch(/reward|control plane|stderr/i);
  expect(await page.locator(".unseen, .plane").count()).toBe(0);
});

test("squares are gone through by keyboard, and one is opened", async () => {
  serve({ sessions: ["a", "b", "c"].map((id, seed) => row(id, { seed })) });
  stub.first.set("/watch/sessions/b", [["session", session("b")]]);
  const { page } = await browser.open(stub.url);
  await page.getByRole("listbox").focus();
  await page.keyboard.press("ArrowRight");
  expect(await page.getByRole("listbox", { name: "Sessions" }).getByRole("option").innerText()).toContain("seed 1");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /frozen_lake/ }).waitFor();
  expect(page.url()).toContain("#/session/b");
});

test("sessions are found by what one knows of them", async () => {
  serve({ sessions: [row("abc", { owner: "alice" }), row("def", { owner: "bob" }), row("ghi", { state: "ended", end: "idle_timeout" })] });
  const { page } = await browser.open(stub.url);
  await page.getByRole("button", { name: "Table" }).click();
  for (const [text, found] of [["bob", "def"], ["idle timeout", "ghi"], ["ABC", "abc"]] as const) {
    await page.getByLabel("Search sessions").fill(text);
    await expect.poll(() => page.locator("tbody th").allInnerTexts()).toEqual([found]);
  }
});

test("ending a session is asked about first", async () => {
  serve();
  stub.first.set("/watch/sessions/a", [["session", session("a")]]);
  const { page } = await browser.open(`${stub.url}#/session/a`);
  await page.getByRole("button", { name: "End session" }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  expect(stub.asked).not.toContain("DELETE /sessions/a");
  await page.getByRole("button", { name: "End session" }).click();
  await page.getByRole("button", { name: "End it" }).click();
  await expect.poll(() => stub.asked).toContain("DELETE /sessions/a");
});

for (const theme of ["light", "dark"] as const) {
  for (const width of [360, 1600]) {
    test(`axe finds nothing, and nothing is wider than the page, in ${theme} at ${width} px`, async () => {
      serve(troubled("what somebody says"));
      conversation("a", "what somebody says");
      const { page } = await browser.open(stub.url, { theme, width });
      await page.locator(".charts canvas").first().waitFor();
      expect(await amiss(page)).toEqual([]);
      await page.getByRole("button", { name: "Table" }).click();
      expect(await amiss(page)).toEqual([]);
      await page.goto(`${stub.url}#/session/a`);
      await page.getByRole("heading", { name: /^Ended/ }).waitFor();
      expect(await amiss(page)).toEqual([]);
    });
  }
}

test("the theme is the reader's choice, and is remembered", async () => {
  serve();
  const { page } = await browser.open(stub.url, { theme: "dark" });
  const ground = () => page.evaluate("getComputedStyle(document.body).backgroundColor");
  const dark = await ground();
  await page.getByRole("button", { name: /theme/ }).click();
  const light = await ground();
  expect(light).not.toBe(dark);
  await page.reload();
  await page.getByRole("button", { name: /theme/ }).waitFor();
  expect(await ground()).toBe(light);
});

// Of the page's own work in a frame, in milliseconds, and how often the server changes something.
const FRAME = 16;
const CHANGES = 24;

test("with a thousand sessions that change four times a second a frame takes less than 16 ms", async () => {
  const sessions = Array.from({ length: 1000 }, (_, seed) => row(`session-${seed}`, { seed }));
  serve({ sessions, history: Array.from({ length: 360 }, (_, place) => sample({ time: 1.7e9 + 10 * place, sessions: place })) });
  const { page } = await browser.open(stub.url);
  await page.getByText("idle 1,000").waitFor();
  const client = await page.context().newCDPSession(page);
  await client.send("Performance.enable", { timeDomain: "threadTicks" }); // a busy machine counts for nothing
  const before = await spent(client);
  for (let turn = 0; turn < CHANGES; turn++) {
    const changed: SessionRow[] = sessions.filter((_, place) => place % 4 === turn % 4).map((one) => ({ ...one, calls: turn, in_flight: turn % 2 }));
    stub.tell("change", change({ sessions: changed }));
    await page.evaluate("new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))");
  }
  const mean = (await spent(client) - before) / CHANGES;
  console.log(`${mean.toFixed(2)} ms of work a change`);
  expect(mean).toBeLessThan(FRAME);
});

interface Metrics { send: (method: "Performance.getMetrics") => Promise<{ metrics: { name: string; value: number }[] }> }

/** Milliseconds of a processor that the page's tasks have taken so far: script, style, layout and paint. */
async function spent(client: Metrics): Promise<number> {
  const { metrics } = await client.send("Performance.getMetrics");
  return 1000 * (metrics.find(({ name }) => name === "TaskDuration")?.value ?? 0);
}

test("ten thousand sessions are summarised", async () => {
  serve({ counts: [
    { env: "lake", state: "ready", end: null, sessions: 9000 }, { env: "cliff", state: "ready", end: null, sessions: 900 },
    { env: "lake", state: "ended", end: "deleted", sessions: 100 },
  ] });
  stub.first.set("/watch/sessions/known", [["session", session("known")]]);
  const { page } = await browser.open(stub.url);
  await page.getByText("10,000 sessions: too many").waitFor();
  await page.getByText("9,000 idle, 100 ended").waitFor();
  await page.getByLabel("Id of a session").fill("known");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /frozen_lake/ }).waitFor();
});
