import { expect, test } from "vitest";
import { spoken } from "../src/playground/client.ts";
import { within } from "../src/runs/words.tsx";

test("an interval without width says that there is no spread", () => {
  expect(within([0, 0])).toBe("no spread");
  expect(within([0, 1])).toBe("0 to 1");
  expect(within(null)).toBe("");
});

test("of an answer in JSON only its message is for people", () => {
  expect(spoken(new Error('Error POSTing to endpoint: {"jsonrpc":"2.0","error":{"code":-32600,"message":"no room"}}'))).toBe("no room");
  expect(spoken(new Error('HTTP 503: {"error":"later"}'))).toBe("later");
  expect(spoken(new Error("{ broken"))).toBe("{ broken");
  expect(spoken("plain")).toBe("plain");
});
