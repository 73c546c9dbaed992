import { expect, test } from "vitest";
import { link, parse } from "../src/route.ts";

test("a link leads to the parts that it was made of, whatever is in them", () => {
  for (const parts of [[], ["session", "a/b#c %"], ["session", "<b>"]]) expect(parse(link(...parts))).toEqual(parts);
});

test("a hash that is no text is a place like any other", () => {
  expect(parse("#/session/%E0%A4%A")).toEqual(["session"]);
  expect(parse("")).toEqual([]);
});
