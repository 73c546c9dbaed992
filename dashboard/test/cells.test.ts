import { expect, test } from "vitest";
import { row } from "../e2e/stub.ts";
import { ALL, at, COLORS, kindOf, KINDS, layout, matches, moved } from "../src/overview/cells.ts";

test("a session is found by its id, environment, seed, owner and end", () => {
  const one = row("c2623df6", { env: "frozen_lake", seed: 41, owner: "Alice", state: "ended", end: "idle_timeout" });
  for (const text of ["2623", "frozen", "41", "alice", "idle timeout", "idle_timeout", "lake 41", ""]) expect(matches(one, { ...ALL, text })).toBe(true);
  for (const text of ["bob", "42", "lake 42"]) expect(matches(one, { ...ALL, text })).toBe(false);
  expect(matches(one, { ...ALL, env: "blackjack" })).toBe(false);
  expect(matches(one, { ...ALL, kind: "ended" })).toBe(true);
  expect(matches(one, { ...ALL, kind: "failed" })).toBe(false);
});

test("kinds tell a failure from an end, and work from waiting", () => {
  expect(kindOf(row("a", { state: "ended", failed: true }))).toBe("failed");
  expect(kindOf(row("a", { state: "ended" }))).toBe("ended");
  expect(kindOf(row("a", { in_flight: 2 }))).toBe("busy");
  expect(kindOf(row("a", { state: "started", in_flight: 1 }))).toBe("started");
});

test("every square is at its place, in any number of them", () => {
  for (const count of [1, 60, 1000, 5000]) {
    for (const width of [300, 900]) {
      const plan = layout(count, width);
      expect(plan.columns * plan.pitch - (plan.pitch - plan.side)).toBeLessThanOrEqual(width);
      expect(plan.rows * plan.columns).toBeGreaterThanOrEqual(count);
      for (const place of [0, count >> 1, count - 1]) {
        const [x, y] = [(place % plan.columns) * plan.pitch + 2, Math.floor(place / plan.columns) * plan.pitch + 2];
        expect(at(plan, count, x, y)).toBe(place);
        expect(at(plan, count, x - 2 + plan.side + 0.5, y)).toBe(-1);
      }
    }
  }
  expect(layout(5000, 900).side).toBeLessThan(layout(5, 900).side);
});

test("arrow keys stay among the squares", () => {
  const plan = layout(50, 260);
  expect(moved("ArrowRight", 0, plan, 50)).toBe(1);
  expect(moved("ArrowDown", 0, plan, 50)).toBe(plan.columns);
  expect(moved("ArrowLeft", 0, plan, 50)).toBe(0);
  expect(moved("End", 3, plan, 50)).toBe(49);
  expect(moved("PageDown", 45, plan, 50)).toBe(49);
  expect(moved("a", 3, plan, 50)).toBeNull();
});

test("no two kinds of sessions have one color", () => {
  expect(new Set(Object.values(COLORS)).size).toBe(KINDS.length);
});
