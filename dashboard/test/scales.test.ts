import { expect, test } from "vitest";
import { bytes } from "../src/numbers.ts";
import { ceiling } from "../src/parts/scales.ts";

test("a scale ends at a round number that is not far above, and its half is round, too", () => {
  for (const value of [1e-4, 0.07, 0.3, 1, 5, 9.99, 10, 61, 1e6 + 1]) {
    const top = ceiling(value, "decimal");
    expect(top).toBeGreaterThanOrEqual(value * (1 - 1e-9));
    expect(top).toBeLessThanOrEqual(2 * value);
    expect(String(Number((top / 2).toPrecision(3)))).toMatch(/^[\d.e-]{1,7}$/);
  }
  for (const value of [0, 1, 3, 7, 42, 999]) expect(Number.isInteger(ceiling(value, "whole") / 2)).toBe(true);
  for (const value of [5, 1000, 3e6, 2.1 * 2 ** 30, 1023 * 2 ** 20]) {
    const top = ceiling(value, "bytes");
    expect(top).toBeGreaterThanOrEqual(value);
    expect(bytes(top)).toMatch(/^\d{1,3} [KMG]?i?B$/);
  }
  expect([ceiling(0, "decimal"), ceiling(0, "bytes"), ceiling(NaN, "whole")]).toEqual([1, 2, 2]);
});
