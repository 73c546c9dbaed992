import { expect, test } from "vitest";
import { session as told } from "../e2e/stub.ts";
import type { Control, Frame, Seen } from "../src/feed.ts";
import { Session } from "../src/live/session.ts";

const seen = (n: number): Seen => ({
  n, time: n, from: "client", attachment: 1, kind: "request", method: "tools/call", target: null, id: String(n), body: "{}", cut: 0, seconds: null, images: [],
});
const control = (time: number): Control => ({
  time, n: time, step: time, reward: 1, total: time, terminated: false, truncated: false, info: null, problem: null,
});
const frame = (number: number, mime = "image/png"): Frame => ({ n: number, image: { number, mime, bytes: 3, block: 0 }, data: "AAAA" });

test("what a new connection tells once more is not there twice, and what only the page has stays", () => {
  const session = new Session();
  for (const n of [1, 2, 3]) session.apply("message", seen(n));
  for (const time of [1, 2, 3]) {
    session.apply("control", control(time));
    session.apply("stderr", { time, line: String(time) });
    session.apply("frame", frame(time));
  }
  session.again();
  session.apply("session", told("a"));
  for (const n of [2, 3, 4]) session.apply("message", seen(n));
  for (const time of [2, 3, 4]) {
    session.apply("control", control(time));
    session.apply("stderr", { time, line: String(time) });
    session.apply("frame", frame(time));
  }
  expect(session.messages.value.map(({ n }) => n)).toEqual([1, 2, 3, 4]);
  expect(session.control.value.map(({ time }) => time)).toEqual([1, 2, 3, 4]);
  expect(session.stderr.value.map(({ line }) => line)).toEqual(["1", "2", "3", "4"]);
  expect(session.pictures.value.map(({ number }) => number)).toEqual([1, 2, 3, 4]);
});

test("lines of the same moment are all kept", () => {
  const session = new Session();
  for (const line of ["a", "b"]) session.apply("stderr", { time: 1, line });
  expect(session.stderr.value).toHaveLength(2);
});

test("only pixels become pictures", () => {
  const session = new Session();
  session.apply("frame", frame(1, "image/svg+xml"));
  session.apply("frame", frame(2, "text/html"));
  session.apply("frame", frame(3, "image/jpeg"));
  expect(session.pictures.value.map(({ url }) => url)).toEqual(["data:image/jpeg;base64,AAAA"]);
});

test("an end is the end of the feed, and one that is told late counts as well", () => {
  const ended = { time: 1, cause: "deleted", text: "it was deleted", exit_status: null, stderr: [], failed: false };
  const session = new Session();
  expect(session.apply("ended", ended)).toBe("over");
  expect(session.ended.value).toEqual(ended);
  const late = new Session();
  late.apply("session", told("a", { ended, state: "ended" }));
  expect(late.ended.value).toEqual(ended);
});

test("what is left out is counted", () => {
  const session = new Session();
  session.apply("lost", { events: 3 });
  session.apply("lost", { events: 2 });
  expect(session.lost.value).toBe(5);
});
