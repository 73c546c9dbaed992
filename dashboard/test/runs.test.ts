import { expect, test } from "vitest";
import { chosen, type Choice } from "../src/runs/choice.ts";
import type { Config, Episode, Metrics, Run } from "../src/runs/data.ts";
import { course, places, sharedEnvironments, shares } from "../src/runs/courses.ts";
import { merged } from "../src/runs/live_source.ts";
import { compared, means } from "../src/runs/pairs.ts";
import { placeOf } from "../src/runs/places.ts";
import { settings } from "../src/runs/side_by_side.tsx";
import { isStored, linkTo } from "../src/runs/source.ts";

function episode(id: string, changes: Partial<Episode> = {}): Episode {
  return {
    id, row: id, sample: 0, env: "lake", seed: 0, end: "terminated", valid: true, reward: 0, steps: 2, seconds: 1, tokens: 0,
    curve: [0], images_left_out: 0, index: 0, ...changes,
  };
}

const METRICS = { episodes: 0, environments: {} } as unknown as Metrics;
const CONFIG = { policy: { kind: "random" }, options: { max_steps: 5 }, started_at: "now" } as unknown as Config;

function run(key: string, changes: Partial<Run> = {}): Run {
  return { key, name: `run ${key}`, config: CONFIG, metrics: METRICS, state: "complete", episodes: [], playing: [], ...changes };
}

function news(key: string, changes = {}) {
  return { key, name: `run ${key}`, config: CONFIG, mark: "0.0.0", from: 0, episodes: [], state: "running" as const, playing: [], metrics: METRICS, more: false, ...changes };
}

test("two runs are compared by row and seed, and what only one has stands alone", () => {
  const one = [episode("a", { reward: 1 }), episode("b", { reward: 0 }), episode("c"), episode("d", { reward: null, valid: false })];
  const other = [episode("a", { reward: 0 }), episode("b", { reward: 2 }), episode("c", { seed: 7 }), episode("d", { reward: 1 })];
  const { pairs, better, same, worse, mean, bySeed } = compared(one, other);
  expect(pairs.map(({ row, difference }) => [row, difference])).toEqual([["a", -1], ["b", 2], ["c", null], ["d", null], ["c", null]]);
  expect([better, same, worse, mean, bySeed]).toEqual([1, 0, 1, 0.5, false]);
});

test("of rows that were played several times the means are compared", () => {
  const played = (rewards: number[]) => rewards.map((reward, sample) => episode(`a#${sample}`, { row: "a", sample, reward }));
  const [pair] = compared(played([0, 1]), played([1, 1, 1, 0])).pairs;
  expect(pair?.difference).toBe(0.25);
});

test("an episode that the machinery broke counts among the ends and in no mean, and tokens that nobody told are no 0", () => {
  const broken = { valid: false, reward: null, end: "env_crashed", steps: 90, tokens: 900, seconds: 900 };
  const one = [episode("a#0", { row: "a", reward: 1, tokens: 7 }), episode("a#1", { row: "a", reward: 0 }), episode("a#2", { row: "a", ...broken })];
  const [pair] = compared(one, [episode("a#0", { row: "a", ...broken })]).pairs;
  expect(pair?.one).toMatchObject({ scored: 2, reward: 0.5, steps: 2, tokens: 7, seconds: 1, ends: ["terminated", "env_crashed"] });
  expect(pair?.other).toMatchObject({ scored: 0, reward: null, steps: null, tokens: null, seconds: null, ends: ["env_crashed"] });
  expect(means([...one, episode("b", { steps: 5 })])).toEqual({ steps: 3, tokens: 7, seconds: 1 });
});

test("runs without a row in common are compared by environment and seed", () => {
  const { pairs, bySeed } = compared([episode("a", { seed: 3, reward: 1 })], [episode("z", { seed: 3, reward: 2 })]);
  expect([bySeed, pairs.length, pairs[0]?.difference]).toEqual([true, 1, 1]);
});

test("news are put behind what is known, and what is unchanged stays the same object", () => {
  const first = merged([], [news("1", { episodes: [episode("a")] }), news("2")]);
  expect(first.map(({ episodes }) => episodes.map(({ id }) => id))).toEqual([["a"], []]);
  const second = merged(first, [news("1", { from: 1, metrics: null }), news("2", { episodes: [episode("b"), episode("c")] })]);
  expect(second[0]).toBe(first[0]);
  expect(second[1]?.episodes.map(({ id, index }) => [id, index])).toEqual([["b", 0], ["c", 1]]);
  expect(merged(second, [news("1", { from: 1, metrics: null }), news("2", { from: 2, metrics: null })])).toBe(second);
  const anew = merged(second, [news("1", { from: 1, metrics: null }), news("2", { episodes: [episode("d")] })]);
  expect(anew[1]?.episodes.map(({ id }) => id)).toEqual(["d"]);
});

test("what was being played and is not any more goes away", () => {
  const playing = merged([], [news("1", { playing: [episode("a", { end: null })] })]);
  expect(playing[0]?.playing).toHaveLength(1);
  expect(merged(playing, [news("1", { metrics: null })])[0]?.playing).toEqual([]);
});

test("links lead to runs by their keys, and in the page of one run to its episodes", () => {
  const runs = [run("1"), run("2")];
  expect(placeOf([], runs)?.is).toBe("all");
  expect(placeOf(["2", "x"], runs)).toEqual({ is: "episode", run: runs[1], id: "x" });
  expect(placeOf(["difference", "1", "2"], runs)).toEqual({ is: "difference", one: runs[0], other: runs[1] });
  expect([placeOf(["3"], runs), placeOf(["difference", "1", "9"], runs)]).toEqual([null, null]);
  expect(placeOf(["x"], [run("")])).toMatchObject({ is: "episode", id: "x" });
  expect(placeOf(["1", "x"], [run("1")])).toMatchObject({ is: "episode", id: "x" });
});

test("of the settings of runs those are shown that differ", () => {
  const other = { ...CONFIG, options: { max_steps: 9 }, started_at: "then" };
  expect(settings([run("1"), run("2", { config: other })])).toEqual([["options.max_steps", ["5", "9"]]]);
});

test("only the names that a run gives its images are images of it, and a path is text", () => {
  const name = `images/${"a".repeat(64)}.png`;
  expect([name, `../${name}`, `${name}?`, "images/a.png", "data:image/png;base64,AA"].map(isStored)).toEqual([true, false, false, false, false]);
  expect(linkTo("..", "a b/<c>%")).toBe("../a%20b/%3Cc%3E%25");
});

test("episodes are chosen by what is typed, by reward, end and row", () => {
  const all: Choice = { text: "", env: "", end: "", group: "", from: "", to: "", sort: "index", down: false, shown: 200 };
  const some = [episode("a", { reward: 1 }), episode("b", { reward: null, valid: false, end: "env_crashed", index: 1 }), episode("c", { reward: -1, index: 2 })];
  const ids = (choice: Partial<Choice>) => chosen(some, { ...all, ...choice }).map(({ id }) => id);
  expect(ids({ text: "env crashed" })).toEqual(["b"]);
  expect(ids({ from: "0" })).toEqual(["a"]);
  expect(ids({ end: "failed" })).toEqual(["b"]);
  expect(ids({ sort: "reward", down: true })).toEqual(["a", "c", "b"]);
});

const scored = (id: string, changes: Partial<Episode>) => episode(id, changes) as Episode & { reward: number };

test("the course of a reward is the mean over episodes, of which one that is over keeps what it has", () => {
  const long = scored("a", { steps: 4, curve: [0, 0, 1, 1, 3], reward: 3 });
  const short = scored("b", { steps: 2, curve: [0, 1, 1], reward: 1 });
  expect(course([long, short], 4).map(({ x, y }) => [x, y])).toEqual([[0, 0], [1, 0.5], [2, 1], [3, 1], [4, 2]]);
});

test("the points of a thinned curve stand where they were taken", () => {
  expect(places(3, 2)).toEqual([0, 1, 2]);
  expect(places(41, 119).slice(0, 3)).toEqual([0, 2, 4]);
  expect(places(61, 120).at(-1)).toBe(120);
});

test("there is no course of rewards that are not those of the environment's steps", () => {
  expect(course([scored("a", { steps: 1, curve: [0, 0], reward: 7 })], 1)).toEqual([]);
});

test("shares fall from all to none, a stair for each reward", () => {
  const points = shares([scored("a", { reward: 1 }), scored("b", { reward: 3 })], 0, 4);
  expect(points.map(({ x, y }) => [x, y])).toEqual([[0, 1], [1, 1], [1, 0.5], [3, 0.5], [3, 0], [4, 0]]);
});

test("curves are of environments that several runs have rewards of", () => {
  const one = run("1", { episodes: [episode("a"), episode("b", { env: "moon", reward: null, valid: false })] });
  const other = run("2", { episodes: [episode("a"), episode("b", { env: "moon" })] });
  expect(sharedEnvironments([one, other])).toEqual(["lake"]);
});
