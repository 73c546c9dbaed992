import { expect, test } from "vitest";
import { EventParser } from "../src/live/sse.ts";

const STREAM = ": ping\r\n\r\nevent: hello\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid: 3\ndata:x\n\nevent: empty\n\ndata: é\n\n";
const EVENTS = [{ name: "hello", data: "{\"a\":\n1}" }, { name: "message", data: "x" }, { name: "message", data: "é" }];

test("a stream has the same events in whatever pieces it comes", () => {
  for (let size = 1; size <= STREAM.length; size++) {
    const parser = new EventParser();
    const heard = [];
    for (let from = 0; from < STREAM.length; from += size) heard.push(...parser.push(STREAM.slice(from, from + size)));
    expect(heard).toEqual(EVENTS);
  }
});

test("an event that is not yet whole is none", () => {
  const parser = new EventParser();
  expect(parser.push("event: a\ndata: 1\n")).toEqual([]);
  expect(parser.push("\n")).toEqual([{ name: "a", data: "1" }]);
});
