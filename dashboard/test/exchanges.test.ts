import { expect, test } from "vitest";
import type { Seen } from "../src/feed.ts";
import { bodyOf, converse, isFailure, pretty, toolCall } from "../src/session/exchanges.ts";

let last = 0;
function seen(more: Partial<Seen>): Seen {
  return { n: ++last, time: last, from: "client", attachment: 1, kind: "request", method: "tools/call", target: null, id: "1", body: "{}", cut: 0, seconds: null, images: [], ...more };
}

test("an answer stands with its request, whatever comes between, and ids of both sides are apart", () => {
  const call = seen({ id: "1" });
  const progress = seen({ from: "server", kind: "notification", method: "notifications/progress", id: null });
  const sampling = seen({ from: "server", id: "1", method: "sampling/createMessage" });
  const sampled = seen({ from: "client", kind: "result", id: "1" });
  const result = seen({ from: "server", kind: "result", id: "1" });
  const [first, second, third, ...none] = converse([call, progress, sampling, sampled, result]);
  expect(first).toMatchObject({ request: call, answer: result });
  expect(second).toMatchObject({ is: "note", seen: progress });
  expect(third).toMatchObject({ from: "server", request: sampling, answer: sampled });
  expect(none).toEqual([]);
});

test("an answer whose request is not kept stands alone, and an id can be used again", () => {
  const lonely = seen({ from: "server", kind: "result", id: "9" });
  const [one, other] = [seen({ id: "2" }), seen({ id: "2" })];
  const [answer, again] = [seen({ from: "server", kind: "result", id: "2" }), seen({ from: "server", kind: "error", id: "2" })];
  expect(converse([lonely, one, answer, other, again]).map((entry) => entry.is === "exchange" && [entry.request, entry.answer])).toEqual(
    [[null, lonely], [one, answer], [other, again]]);
});

test("a client's request that a new connection tells of once more is the one that waits", () => {
  const [call, again] = [seen({ id: "3" }), seen({ id: "3", body: "", cut: 9 })];
  const answer = seen({ from: "server", kind: "result", id: "3" });
  expect(converse([call, again, answer])).toMatchObject([{ request: call, answer }]);
  const [question, another] = [seen({ from: "server", id: "3" }), seen({ from: "server", id: "3" })];
  expect(converse([question, another])).toHaveLength(2);
});

test("a tool is named whatever is left of the arguments", () => {
  expect(toolCall(seen({ target: "move", body: '{"name":"move","argum', cut: 9 }))).toEqual({ name: "move", args: null });
  expect(toolCall(seen({ target: "move", body: "", cut: 9 }))).toEqual({ name: "move", args: null });
  expect(toolCall(seen({ target: "file:///a", method: "resources/read", body: "", cut: 9 }))).toBeNull();
});

test("bodies are read as far as they can be", () => {
  const call = seen({ body: '{"name":"move","arguments":{"to":"left","by":2}}' });
  expect(toolCall(call)).toEqual({ name: "move", args: [["to", "left"], ["by", 2]] });
  expect(toolCall(seen({ body: '{"name":7}' }))).toBeNull();
  expect(toolCall(seen({ body: '{"name":"move","argum', cut: 9 }))).toBeNull();
  expect(bodyOf(seen({ body: "[" }))).toBeUndefined();
  expect(pretty(seen({ body: "[" }))).toBe("[");
  expect(pretty(seen({ body: '{"a":1}' }))).toBe('{\n  "a": 1\n}');
});

test("an error is a failure, and a result that says so", () => {
  expect(isFailure(seen({ kind: "error" }))).toBe(true);
  expect(isFailure(seen({ kind: "result", body: '{"isError":true}' }))).toBe(true);
  expect(isFailure(seen({ kind: "result", body: '{"isError":"x"}' }))).toBe(false);
});
