import { expect, test } from "vitest";
import { change, environment, hello, row, sample, snapshot } from "../e2e/stub.ts";
import { SAMPLES } from "../src/feed.ts";
import { Server } from "../src/live/server.ts";

test("changes are made to what a snapshot said, and the order stays", () => {
  const server = new Server();
  server.apply("hello", hello());
  server.apply("snapshot", snapshot({ environments: [environment("a"), environment("b")], sessions: [row("1"), row("2"), row("3")] }));
  server.apply("change", change({
    sessions: [row("2", { calls: 9 }), row("4")], gone: ["1"], environments: [environment("a", { live: 4 }), environment("c")], gone_environments: ["b"],
    bounds: [{ setting: "max_sessions", met: 1, last: 5 }],
  }));
  server.apply("change", change({ bounds: [{ setting: "max_sessions", met: 2, last: 6 }] }));
  expect(server.rows().map(({ id, calls }) => [id, calls])).toEqual([["2", 9], ["3", 3], ["4", 3]]);
  expect(server.environments.value.map(({ name, live }) => [name, live])).toEqual([["a", 4], ["c", 0]]);
  expect(server.bounds.value).toEqual([{ setting: "max_sessions", met: 2, last: 6 }]);
});

test("a new snapshot takes the place of all", () => {
  const server = new Server();
  server.apply("snapshot", snapshot({ sessions: [row("1")] }));
  server.apply("snapshot", snapshot({ sessions: [], counts: [{ env: "a", state: "ready", end: null, sessions: 9000 }] }));
  expect(server.rows()).toEqual([]);
  expect(server.counts.value).toHaveLength(1);
  server.apply("snapshot", snapshot({ sessions: [row("2")] }));
  expect(server.counts.value).toBeNull();
});

test("an hour is kept of the history", () => {
  const server = new Server();
  server.apply("snapshot", snapshot({ history: Array.from({ length: SAMPLES }, (_, time) => sample({ time })) }));
  server.apply("sample", sample({ time: SAMPLES }));
  expect(server.history.value).toHaveLength(SAMPLES);
  expect(server.history.value.at(-1)?.time).toBe(SAMPLES);
});

test("ages go by the server's clock", () => {
  const server = new Server();
  server.apply("hello", hello({ now: 1000 }));
  expect(Math.abs(server.now() - 1000)).toBeLessThan(60);
});

test("an event of a later server is passed over", () => {
  const server = new Server();
  server.apply("novelty", { anything: 1 });
  expect(server.known.value).toBe(false);
});
