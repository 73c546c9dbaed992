import { expect, test } from "vitest";
import { bytes, compact, number, seconds, signed } from "../src/numbers.ts";

test("numbers have as many digits as one reads", () => {
  expect([0, 1, 0.1 + 0.2, -2.5, 1234.56, 3e7, 1e-5].map((value) => number(value))).toEqual(
    ["0", "1", "0.3", "−2.5", "1234.6", "3.00e+7", "1.00e-5".replace("-", "−")]);
  expect([1, 0, -1].map(signed)).toEqual(["+1", "0", "−1"]);
});

test("counts, sizes and times are short", () => {
  expect([999, 12_345, 3_200_000].map(compact)).toEqual(["999", "12.3k", "3.2M"]);
  expect([0, 900, 1536, 20 * 2 ** 20, 3 * 2 ** 40].map(bytes)).toEqual(["0 B", "900 B", "1.5 KiB", "20 MiB", "3 TiB"]);
  expect([0, 0.0004, 0.0042, 0.25, 3, 200, 8000, 500_000].map(seconds)).toEqual(
    ["0 s", "<1 ms", "4.2 ms", "250 ms", "3 s", "3.3 min", "2.2 h", "5.8 d"]);
});
