import { expect, test } from "vitest";
import { lonely } from "../src/parts/chart.tsx";

test("a value that no line leads to is a point", () => {
  expect(lonely([])).toEqual([]);
  expect(lonely([3])).toEqual([0]);
  expect(lonely([null, 3, null, 4, 5, null, 6])).toEqual([1, 6]);
  expect(lonely([1, 2, undefined, 0])).toEqual([3]);
});
