import { expect, test } from "vitest";
import { type Draft, draftOf, optionOf, Raw, valueOf, written } from "../src/playground/draft.ts";
import { type Field, fieldOf } from "../src/playground/schema.ts";

/** What a form for a schema comes to, of what it has at first. */
function first(schema: unknown): string {
  const field = fieldOf(schema);
  return written(valueOf(field, draftOf(field)).value);
}

const words = (text: string): Draft => ({ is: "words", text });
const faultsOf = (schema: unknown, draft: Draft): string[] => valueOf(fieldOf(schema), draft).faults.map(({ text }) => text);

test("a tool's arguments are asked for as its schema says, with what it presets", () => {
  const schema = {
    type: "object",
    properties: {
      action: { type: "string", enum: ["LEFT", "RIGHT"], default: "RIGHT" },
      frames: { type: "integer", minimum: 1, maximum: 40, default: 4 },
      deep: { type: "object", properties: { on: { type: "boolean", default: true } }, required: ["on"] },
      left_out: { type: "string" },
      by_default: { const: 3 },
    },
    required: ["action", "frames", "deep", "by_default"],
  };
  expect(JSON.parse(first(schema))).toEqual({ action: "RIGHT", frames: 4, deep: { on: true }, by_default: 3 });
});

test("whole numbers are sent as they are written, however large", () => {
  const schema = { type: "integer" };
  for (const text of ["9007199254740993", "-123456789012345678901234567890", "7", "0"]) {
    expect(written(valueOf(fieldOf(schema), words(text)).value)).toBe(text);
  }
  expect(faultsOf(schema, words("1.5"))).toEqual(["a whole number"]);
  expect(faultsOf({ type: "integer", maximum: 9007199254740992 }, words("9007199254740993"))).toEqual(["at most 9007199254740992"]);
  expect(written(valueOf(fieldOf({}), words('{"n": 9007199254740993}')).value)).toBe('{"n": 9007199254740993}');
});

test("numbers keep their bounds, of every draft's kind", () => {
  const wrong = (schema: object, text: string) => faultsOf({ type: "number", ...schema }, words(text)).length > 0;
  expect(wrong({ minimum: 1 }, "1")).toBe(false);
  expect(wrong({ exclusiveMinimum: 1 }, "1")).toBe(true);
  expect(wrong({ minimum: 1, exclusiveMinimum: true }, "1")).toBe(true);
  expect(wrong({ maximum: 2.5 }, "2.6")).toBe(true);
  expect(wrong({ exclusiveMaximum: 2.5 }, "2.4")).toBe(false);
  expect(wrong({ multipleOf: 0.1 }, "0.3")).toBe(false);
  expect(wrong({ multipleOf: 5 }, "12")).toBe(true);
  expect(["1e400", "NaN", "0x10", "", "1_0", "1."].map((text) => wrong({}, text))).toEqual(Array(6).fill(true));
});

test("texts keep their lengths in characters", () => {
  expect(faultsOf({ type: "string", minLength: 2 }, words("😀"))).toEqual(["at least 2 characters"]);
  expect(faultsOf({ type: "string", maxLength: 1 }, words("😀"))).toEqual([]);
});

test("one of several is chosen, and null is one of them", () => {
  const field = fieldOf({ anyOf: [{ type: "integer" }, { type: "null" }] }) as Field & { is: "variant" };
  expect(field.options.map(({ is }) => is)).toEqual(["number", "fixed"]);
  expect(valueOf(field, optionOf(field, 1)).value).toBe(null);
  expect((fieldOf({ type: ["string", "null"] }) as Field & { is: "variant" }).options.map(({ is }) => is)).toEqual(["text", "fixed"]);
  expect(fieldOf({ oneOf: [{ type: "boolean" }], title: "On" })).toMatchObject({ is: "boolean", title: "On" });
});

test("lists have as many items as they must, and no more than they may", () => {
  const schema = { type: "array", items: { type: "integer", default: 1 }, minItems: 2, maxItems: 3 };
  expect(first(schema)).toBe("[1,1]");
  const items = { is: "items" as const, items: Array<Draft>(4).fill(words("1")) };
  expect(faultsOf(schema, items)).toEqual(["at most 3 items"]);
  expect(first({ prefixItems: [{ type: "boolean" }, { const: "x" }] })).toBe('[false,"x"]');
});

test("references lead to parts of the schema, with what stands beside them", () => {
  const schema = {
    $defs: { "a/b": { type: "string", default: "x" } },
    type: "object", properties: { one: { $ref: "#/$defs/a~1b", description: "said here" } }, required: ["one"],
  };
  expect(first(schema)).toBe('{"one":"x"}');
  const [member] = (fieldOf(schema) as Field & { is: "object" }).members;
  expect(member?.field.description).toBe("said here");
});

test("parts that are all meant are one", () => {
  const schema = { allOf: [{ properties: { a: { const: 1 } }, required: ["a"] }, { $ref: "#/$defs/b" }], $defs: { b: { properties: { b: { const: 2 } }, required: ["b"] } } };
  expect(JSON.parse(first(schema))).toEqual({ a: 1, b: 2 });
});

test("members that a schema allows and does not name are given as JSON", () => {
  const schema = { type: "object", properties: { a: { const: 1 } }, required: ["a"], additionalProperties: true };
  const field = fieldOf(schema);
  const draft = { ...draftOf(field), more: '{"b": [2]}' } as Draft;
  expect(written(valueOf(field, draft).value)).toBe('{"a":1,"b":[2]}');
  expect(faultsOf(schema, { ...draft, more: "[]" } as Draft)).toEqual(["an object, as JSON"]);
});

test("what is none, without end or without sense is asked for as JSON, at once", () => {
  const endless: Record<string, unknown> = { type: "object", properties: { again: { $ref: "#" } }, required: ["again"] };
  const loop = { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } };
  const wide = { type: "object", properties: Object.fromEntries(Array.from({ length: 5000 }, (_, place) => [`p${place}`, {}])) };
  const bushy = { $defs: { n: { oneOf: Array(20).fill({ type: "object", properties: { n: { $ref: "#/$defs/n" } }, required: ["n"] }) } }, $ref: "#/$defs/n" };
  const odd = [undefined, null, true, false, 5, "x", [], {}, { type: 5 }, { type: {} }, { type: "nothing" }, { enum: [] }, { $ref: 5 }, { $ref: "http://x/y" },
    { $ref: "#/%E0%A4%A" }, { properties: 5 }, { type: "object", properties: [] , required: 5 }, { anyOf: [] }, { allOf: [5] }, { items: 5 }, { minItems: -1, items: {} },
    { type: "array", items: {}, minItems: 1e9 }, { type: "string", maxLength: -5, pattern: "(a+)+$" }, endless, loop, wide, bushy];
  for (const schema of odd) {
    const field = fieldOf(schema);
    expect(() => valueOf(field, draftOf(field))).not.toThrow();
  }
  expect([undefined, {}, loop, wide].map((schema) => fieldOf(schema).is)).toEqual(["json", "json", "json", "json"]);
});

test("names that mean something to JavaScript are names like any other", () => {
  const schema = JSON.parse('{"type":"object","properties":{"__proto__":{"const":1},"constructor":{"const":2},"toString":{"type":"string"}},"required":["__proto__","constructor"]}') as unknown;
  expect(first(schema)).toBe('{"__proto__":1,"constructor":2}');
  expect(({} as Record<string, unknown>).constructor).toBe(Object);
});

test("raw text stays in its place, whatever the texts beside it say", () => {
  expect(written({ a: "\"x:0\"", b: new Raw("10000000000000000001"), c: [new Raw("[1]")] })).toBe('{"a":"\\"x:0\\"","b":10000000000000000001,"c":[[1]]}');
});
