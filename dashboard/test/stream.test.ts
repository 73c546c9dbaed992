import { afterEach, expect, test, vi } from "vitest";
import { token, wanted } from "../src/access.ts";
import { backOff, type Connection, follow, type Stream } from "../src/live/stream.ts";

function answers(...given: (Response | Error)[]): { headers: Headers[] } {
  const headers: Headers[] = [];
  vi.stubGlobal("fetch", (_: URL, init: RequestInit) => {
    headers.push(new Headers(init.headers));
    const next = given.shift();
    return next instanceof Response ? Promise.resolve(next) : Promise.reject(next ?? new Error("nothing more"));
  });
  return { headers };
}

function stream(...events: (readonly [string, unknown])[]): Response {
  return new Response(events.map(([name, data]) => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`).join(""));
}

function reached(followed: Stream, is: Connection["is"]): Promise<Connection> {
  return new Promise((resolve) => {
    followed.connection.subscribe((connection) => { if (connection.is === is) resolve(connection); });
  });
}

afterEach(() => {
  vi.unstubAllGlobals();
  token.value = null;
  wanted.value = null;
});

test("waits grow with each failure, up to a bound, and are not the same for all", () => {
  expect([0, 1, 2, 3, 4, 5, 50].map((failures) => backOff(failures, 0.5))).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  expect(backOff(2, 0)).toBeLessThan(backOff(2, 0.99));
});

test("a lost connection is made again, and each one says that it begins", async () => {
  answers(stream(["a", 1]), new Error("no network"), stream(["a", 2], ["end", 3]));
  const heard: unknown[] = [];
  let begun = 0;
  const followed = follow("./watch", (name, data) => { heard.push(data); return name === "end" ? "over" : undefined; }, () => { begun++; });
  expect(await reached(followed, "lost")).toMatchObject({ why: "the server has ended the stream" });
  followed.retry();
  followed.connection.subscribe(() => followed.retry());
  await reached(followed, "over");
  expect(heard).toEqual([1, 2, 3]);
  expect(begun).toBe(2);
});

test("a token goes with each request, and one is asked for where it is wanted", async () => {
  const { headers } = answers(new Response('{"error":{"message":"who are you?"}}', { status: 401 }), new Response("{}", { status: 401 }));
  await reached(follow("./watch", () => undefined), "refused");
  expect(wanted.value).toBe("");
  token.value = "secret";
  await reached(follow("./watch", () => undefined), "refused");
  expect(headers.map((one) => one.get("authorization"))).toEqual([null, "Bearer secret"]);
  expect(wanted.value).not.toBe("");
});

test("what is refused for good is not asked for again", async () => {
  answers(new Response('{"error":{"message":"no such session"}}', { status: 404 }));
  expect(await reached(follow("./watch/sessions/x", () => undefined), "refused")).toEqual({ is: "refused", status: 404, why: "no such session" });
});
