/** What a form has to ask for, of a JSON Schema. A schema is what a server says: it may be anything at all. Pure. */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Schema = Readonly<Record<string, unknown>>;

/** What is said beside a field. */
interface About {
  readonly title: string;
  readonly description: string;
  /** The value that the server takes where none is given; undefined where the schema names none. */
  readonly preset: Json | undefined;
}

export type Field = About & Kind;

/** What is asked for, and what is known of it. */
type Kind = Partial<About> & (
  | { readonly is: "text"; readonly longest: number | null; readonly shortest: number; readonly hint: string }
  | { readonly is: "number"; readonly whole: boolean; readonly bounds: Bounds }
  | { readonly is: "boolean" }
  | { readonly is: "choice"; readonly values: readonly Json[] }
  | { readonly is: "fixed"; readonly value: Json }
  | { readonly is: "object"; readonly members: readonly Member[]; readonly open: boolean }
  | { readonly is: "list"; readonly item: Field; readonly least: number; readonly most: number | null }
  | { readonly is: "tuple"; readonly items: readonly Field[] }
  | { readonly is: "variant"; readonly options: readonly Field[] }
  /** Whatever the schema means, its value is written as JSON. */
  | { readonly is: "json"; readonly hint: string });

export interface Member {
  readonly name: string;
  readonly required: boolean;
  readonly field: Field;
}

/** The least and the greatest; with `Exclusive` they are out of reach themselves. */
export interface Bounds {
  readonly least: number | null;
  readonly leastExclusive: boolean;
  readonly most: number | null;
  readonly mostExclusive: boolean;
  readonly multipleOf: number | null;
}

// What a person fills in, with room to spare. What is more is written as JSON.
const DEPTH = 6;
const FIELDS = 250;
const CHOICES = 500;
const OPTIONS = 20;
const AT_FIRST = 20;
const TITLE = 120;
const DESCRIPTION = 1500;

/** The fields for values of a schema. */
export function fieldOf(schema: unknown): Field {
  return new Reader(schema).field(schema, 0);
}

class Reader {
  readonly #root: unknown;
  #left = FIELDS;

  constructor(root: unknown) {
    this.#root = root;
  }

  field(given: unknown, depth: number): Field {
    const schema = this.#resolved(given);
    if (schema === null) return json(given);
    if (depth > DEPTH || this.#left-- <= 0) return json(schema);
    return { ...about(schema), ...this.#kind(schema, depth) };
  }

  #kind(schema: Schema, depth: number): Kind {
    if ("const" in schema) return { is: "fixed", value: schema.const as Json };
    if (Array.isArray(schema.enum) && schema.enum.length > 0 && schema.enum.length <= CHOICES) return { is: "choice", values: schema.enum as Json[] };
    const options = schema.oneOf ?? schema.anyOf;
    if (Array.isArray(options) && options.length > 0) return this.#variants(options, schema, depth);
    const type = typeOf(schema);
    if (Array.isArray(type)) return this.#variants(type.map((one: unknown) => ({ ...schema, title: undefined, description: undefined, type: one })), schema, depth);
    switch (type) {
      case "string": return text(schema);
      case "integer": return { is: "number", whole: true, bounds: boundsOf(schema) };
      case "number": return { is: "number", whole: false, bounds: boundsOf(schema) };
      case "boolean": return { is: "boolean" };
      case "null": return { is: "fixed", value: null };
      case "object": return this.#object(schema, depth);
      case "array": return this.#array(schema, depth);
      default: return { is: "json", hint: hintOf(schema) };
    }
  }

  #variants(options: readonly unknown[], schema: Schema, depth: number): Kind {
    if (options.length > OPTIONS) return { is: "json", hint: hintOf(schema) };
    const fields = options.map((option) => this.field(option, depth + 1));
    return fields.length === 1 && fields[0] ? { ...fields[0], ...named(schema) } : { is: "variant", options: fields };
  }

  #object(schema: Schema, depth: number): Kind {
    const properties = isRecord(schema.properties) ? Object.entries(schema.properties) : [];
    if (properties.length > this.#left) return { is: "json", hint: hintOf(schema) };
    const required = new Set(Array.isArray(schema.required) ? schema.required : []);
    const open = schema.additionalProperties === true || isRecord(schema.additionalProperties);
    // Of a tool that says no more than this, no argument is the usual one.
    if (!properties.length && schema.additionalProperties !== false && depth > 0) return { is: "json", hint: "an object" };
    const members = properties.map(([name, given]) => ({ name, required: required.has(name), field: this.field(given, depth + 1) }));
    return { is: "object", members, open };
  }

  #array(schema: Schema, depth: number): Kind {
    if (Array.isArray(schema.prefixItems) && schema.prefixItems.length <= OPTIONS) {
      return { is: "tuple", items: schema.prefixItems.map((item) => this.field(item, depth + 1)) };
    }
    const least = Math.min(AT_FIRST, countOf(schema.minItems) ?? 0);
    return { is: "list", item: this.field(schema.items ?? {}, depth + 1), least, most: countOf(schema.maxItems) };
  }

  /** The schema itself behind references, with what all of its parts say; null for none. */
  #resolved(given: unknown): Schema | null {
    let schema = given;
    for (let hops = 0; isRecord(schema) && typeof schema.$ref === "string"; hops++) {
      const { $ref, ...beside } = schema;
      const target = hops > DEPTH ? undefined : this.#at($ref);
      if (!isRecord(target)) return null;
      schema = { ...target, ...beside };
    }
    if (!isRecord(schema)) return null;
    return Array.isArray(schema.allOf) ? this.#joined(schema, schema.allOf) : schema;
  }

  #joined(whole: Schema, parts: readonly unknown[]): Schema | null {
    let joined: Schema = { ...whole, allOf: undefined };
    for (const part of parts.slice(0, OPTIONS)) {
      if (!isRecord(part) || part.allOf !== undefined) return null;
      const schema = this.#resolved(part);
      if (!schema) return null;
      joined = {
        ...schema, ...joined,
        ...(isRecord(schema.properties) || isRecord(joined.properties) ? { properties: { ...record(schema.properties), ...record(joined.properties) } } : {}),
        required: [...list(joined.required), ...list(schema.required)],
      };
    }
    return joined;
  }

  /** What a reference within the document leads to. */
  #at(reference: string): unknown {
    if (!reference.startsWith("#")) return undefined;
    let here = this.#root;
    for (const part of reference.slice(1).split("/").filter(Boolean)) {
      const name = unescaped(part);
      if (Array.isArray(here)) here = here[Number(name)];
      else if (isRecord(here) && Object.hasOwn(here, name)) here = here[name];
      else return undefined;
    }
    return here;
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const record = (value: unknown): Record<string, unknown> => (isRecord(value) ? value : {});
const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const numberOf = (value: unknown): number | null => (typeof value === "number" && Number.isFinite(value) ? value : null);
const countOf = (value: unknown): number | null => (typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : null);
const cut = (value: unknown, most: number): string => (typeof value !== "string" ? "" : value.length > most ? `${value.slice(0, most)} …` : value);

function unescaped(part: string): string {
  try {
    return decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
  } catch {
    return part;
  }
}

function about(schema: Schema): About {
  return {
    title: cut(schema.title, TITLE), description: cut(schema.description, DESCRIPTION),
    preset: schema.default === undefined ? undefined : schema.default as Json,
  };
}

/** What a schema says of itself beside the one option that it has. */
function named(schema: Schema): Partial<About> {
  const { title, description, preset } = about(schema);
  return { ...(title ? { title } : {}), ...(description ? { description } : {}), ...(preset === undefined ? {} : { preset }) };
}

function json(schema: unknown): Field {
  return { ...about(record(schema)), is: "json", hint: isRecord(schema) ? hintOf(schema) : "any JSON" };
}

function hintOf(schema: Schema): string {
  const type = typeOf(schema);
  return typeof type === "string" ? `JSON: ${cut(type, TITLE)}` : "any JSON";
}

/** The type that a schema names, or that its other words are about. */
function typeOf(schema: Schema): unknown {
  const { type } = schema;
  if (type !== undefined) return Array.isArray(type) && type.length === 1 ? type[0] as unknown : type;
  if (isRecord(schema.properties)) return "object";
  if (schema.items !== undefined || Array.isArray(schema.prefixItems)) return "array";
  if (schema.minLength !== undefined || schema.maxLength !== undefined || schema.pattern !== undefined) return "string";
  return schema.minimum !== undefined || schema.maximum !== undefined ? "number" : undefined;
}

function text(schema: Schema): Kind {
  // A pattern is told and not tried: an expression of somebody else's may take for ever.
  const hints = [cut(schema.format, TITLE), typeof schema.pattern === "string" ? `like ${cut(schema.pattern, TITLE)}` : ""];
  return { is: "text", longest: countOf(schema.maxLength), shortest: countOf(schema.minLength) ?? 0, hint: hints.filter(Boolean).join(", ") };
}

function boundsOf(schema: Schema): Bounds {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const [under, over] = [numberOf(exclusiveMinimum), numberOf(exclusiveMaximum)];
  const [least, most] = [numberOf(minimum), numberOf(maximum)];
  return {
    least: under ?? least,
    // Before draft 6 it was a flag beside the bound.
    leastExclusive: under !== null || exclusiveMinimum === true,
    most: over ?? most,
    mostExclusive: over !== null || exclusiveMaximum === true,
    multipleOf: typeof schema.multipleOf === "number" && schema.multipleOf > 0 ? schema.multipleOf : null,
  };
}

/** The bounds in words; "" where there are none. */
export function within({ least, leastExclusive, most, mostExclusive, multipleOf }: Bounds): string {
  return [
    least === null ? "" : `${leastExclusive ? "more than" : "at least"} ${least}`,
    most === null ? "" : `${mostExclusive ? "less than" : "at most"} ${most}`,
    multipleOf === null ? "" : `a multiple of ${multipleOf}`,
  ].filter(Boolean).join(", ");
}
