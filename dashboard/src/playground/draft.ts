/** What has been filled into a form, and the value that it comes to. Pure. */
import { type Bounds, type Field, type Json, within } from "./schema.ts";

/** What stands in a field, whether it is right or not. */
export type Draft =
  | { readonly is: "words"; readonly text: string }
  | { readonly is: "flag"; readonly on: boolean }
  | { readonly is: "place"; readonly place: number }
  | { readonly is: "nothing" }
  | { readonly is: "members"; readonly given: Readonly<Record<string, Draft | undefined>>; readonly more: string }
  | { readonly is: "items"; readonly items: readonly Draft[] }
  | { readonly is: "option"; readonly place: number; readonly draft: Draft };

/** A fault: where it is, and what. */
export interface Fault {
  readonly path: string;
  readonly text: string;
}

/** JSON text that is to be sent as it stands: numbers beyond what JavaScript can count would be others. */
export class Raw {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

export type Value = Json | Raw | Value[] | { [key: string]: Value };

/** What a field has at first: what its schema presets, and of the rest as little as there has to be. */
export function draftOf(field: Field, preset: Json | undefined = field.preset): Draft {
  switch (field.is) {
    case "text": return { is: "words", text: typeof preset === "string" ? preset : "" };
    case "number": return { is: "words", text: typeof preset === "number" ? String(preset) : "" };
    case "json": return { is: "words", text: preset === undefined ? "" : JSON.stringify(preset, null, 2) };
    case "boolean": return { is: "flag", on: preset === true };
    case "fixed": return { is: "nothing" };
    case "choice": return { is: "place", place: Math.max(0, field.values.findIndex((value) => JSON.stringify(value) === JSON.stringify(preset))) };
    case "tuple": return { is: "items", items: field.items.map((item) => draftOf(item)) };
    case "variant": return optionOf(field, 0);
    case "list": {
      const items = Array.isArray(preset) ? preset.slice(0, field.most ?? undefined).map((one) => draftOf(field.item, one)) : [];
      while (items.length < field.least) items.push(draftOf(field.item));
      return { is: "items", items };
    }
    case "object": {
      const presets = typeof preset === "object" && preset !== null && !Array.isArray(preset) ? preset : {};
      const given = field.members.filter(({ name, required }) => required || Object.hasOwn(presets, name))
        .map(({ name, field: of }) => [name, draftOf(of, Object.hasOwn(presets, name) ? presets[name] : of.preset)] as const);
      return { is: "members", given: Object.fromEntries(given), more: "" };
    }
  }
}

/** A variant whose option of this place is taken. */
export function optionOf(field: Field & { is: "variant" }, place: number): Draft {
  const option = field.options[place];
  return { is: "option", place, draft: option ? draftOf(option) : { is: "nothing" } };
}

/** The value of a draft, and all that is wrong with it. */
export function valueOf(field: Field, draft: Draft): { value: Value; faults: readonly Fault[] } {
  const faults: Fault[] = [];
  return { value: read(field, draft, "", faults), faults };
}

function read(field: Field, draft: Draft, path: string, faults: Fault[]): Value {
  const fault = (text: string): null => {
    faults.push({ path, text });
    return null;
  };
  switch (field.is) {
    case "fixed": return field.value;
    case "boolean": return draft.is === "flag" && draft.on;
    case "choice": return (draft.is === "place" ? field.values[draft.place] : field.values[0]) ?? null;
    case "text": return wordsOf(field, textOf(draft), fault);
    case "number": return numberOf(field, textOf(draft).trim(), fault);
    case "json": return jsonOf(textOf(draft), fault);
    case "variant": {
      const option = draft.is === "option" ? field.options[draft.place] : undefined;
      return option && draft.is === "option" ? read(option, draft.draft, path, faults) : fault("choose one");
    }
    case "tuple": return field.items.map((item, place) => read(item, itemOf(draft, place) ?? draftOf(item), `${path}/${place}`, faults));
    case "list": return itemsOf(field, draft, path, faults, fault);
    case "object": return membersOf(field, draft, path, faults);
  }
}

const textOf = (draft: Draft): string => (draft.is === "words" ? draft.text : "");
const itemOf = (draft: Draft, place: number): Draft | undefined => (draft.is === "items" ? draft.items[place] : undefined);

type Told = (text: string) => null;

function wordsOf({ longest, shortest }: Field & { is: "text" }, text: string, fault: Told): Value {
  const length = Array.from(text).length; // of characters, as schemas count them
  if (length < shortest) return fault(`at least ${shortest} characters`);
  return longest !== null && length > longest ? fault(`at most ${longest} characters`) : text;
}

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
const WHOLE = /^-?(0|[1-9]\d*)$/;

function numberOf({ whole, bounds }: Field & { is: "number" }, text: string, fault: Told): Value {
  if (!(whole ? WHOLE : NUMBER).test(text)) return fault(whole ? "a whole number" : "a number");
  if (!isWithin(text, bounds)) return fault(within(bounds));
  const value = Number(text);
  return WHOLE.test(text) && !Number.isSafeInteger(value) ? new Raw(text) : Number.isFinite(value) ? value : fault("a number that is not as large");
}

function isWithin(text: string, { least, leastExclusive, most, mostExclusive, multipleOf }: Bounds): boolean {
  // Whole numbers are compared as such, however large; with a bound between two of them JavaScript does that, too.
  const value = WHOLE.test(text) ? BigInt(text) : Number(text);
  if (least !== null && (value < least || (leastExclusive && value == least))) return false;
  if (most !== null && (value > most || (mostExclusive && value == most))) return false;
  if (multipleOf === null) return true;
  if (typeof value === "bigint" && Number.isSafeInteger(multipleOf)) return value % BigInt(multipleOf) === 0n;
  const times = Number(text) / multipleOf;
  return Math.abs(times - Math.round(times)) < 1e-9 * Math.max(1, Math.abs(times));
}

function jsonOf(text: string, fault: Told): Value {
  try {
    JSON.parse(text);
    return new Raw(text.trim());
  } catch (error) {
    return fault(text.trim() ? `no JSON: ${error instanceof Error ? error.message : ""}` : "JSON is wanted here");
  }
}

function itemsOf(field: Field & { is: "list" }, draft: Draft, path: string, faults: Fault[], fault: Told): Value {
  const items = draft.is === "items" ? draft.items : [];
  if (items.length < field.least) return fault(`at least ${field.least} items`);
  if (field.most !== null && items.length > field.most) return fault(`at most ${field.most} items`);
  return items.map((item, place) => read(field.item, item, `${path}/${place}`, faults));
}

function membersOf(field: Field & { is: "object" }, draft: Draft, path: string, faults: Fault[]): Value {
  if (draft.is !== "members") return {};
  const members = field.members.flatMap(({ name, field: of }): [string, Value][] => {
    const given = Object.hasOwn(draft.given, name) ? draft.given[name] : undefined;
    return given ? [[name, read(of, given, `${path}/${name}`, faults)]] : [];
  });
  return Object.fromEntries([...members, ...moreOf(draft.more, path, faults)]);
}

/** Members that the schema allows and does not name. */
function moreOf(text: string, path: string, faults: Fault[]): [string, Value][] {
  if (!text.trim()) return [];
  try {
    const value = JSON.parse(text) as Json;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return Object.entries(value);
  } catch {
    // It is told below.
  }
  faults.push({ path: `${path}/…`, text: "an object, as JSON" });
  return [];
}

/** A value as JSON text, with what is raw as it stands. */
export function written(value: Value, indent = 0): string {
  const raw: string[] = [];
  // No text of a value can have it: it is drawn anew for each.
  const mark = crypto.randomUUID();
  const text = JSON.stringify(value, (_, one: unknown) => (one instanceof Raw ? `${mark}:${raw.push(one.text) - 1}` : one), indent);
  return raw.length ? text.replace(new RegExp(`"${mark}:(\\d+)"`, "g"), (_, place: string) => raw[Number(place)] ?? "null") : text;
}
