import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Json } from "./data.ts";
import { useHere } from "./source.ts";

const ESCAPES = /\u001b\[([0-9;]*)m/g;

/** A terminal's colors become one mark: what is marked is what the environment wanted seen. */
export function Terminal({ text }: { text: string }) {
  const nodes: ComponentChildren[] = [];
  let from = 0;
  let marked = false;
  const put = (part: string): void => { if (part) nodes.push(marked ? <mark key={from}>{part}</mark> : part); };
  for (const match of text.matchAll(ESCAPES)) {
    put(text.slice(from, match.index));
    marked = !/^0*$/.test(match[1] ?? "");
    from = match.index + match[0].length;
  }
  put(text.slice(from));
  return <>{nodes}</>;
}

type Block = Readonly<Record<string, Json>>;

const isObject = (value: Json | undefined): value is Block => typeof value === "object" && value !== null && !Array.isArray(value);

/** The reference or URL of an image block, "" for one that names none; null for any other block. */
export function imageOf(block: Json | undefined): string | null {
  if (!isObject(block)) return null;
  if (block.type === "image") return typeof block.path === "string" ? block.path : "";
  if (block.type !== "image_url") return null;
  const image = isObject(block.image_url) ? block.image_url.url : block.image_url;
  return typeof image === "string" ? image : "";
}

function textOf(block: Json): string | null {
  return isObject(block) && block.type === "text" && typeof block.text === "string" ? block.text : null;
}

export const pretty = (value: unknown): string => JSON.stringify(value, null, 2);

const LONGEST_NAME = 120;

function Picture({ reference }: { reference: string }) {
  const { source, run } = useHere();
  const url = source.image(run, reference);
  if (url) return <img src={url} alt="" />;
  return <span class="none">{reference ? `[image: ${reference.slice(0, LONGEST_NAME)}]` : "[image]"}</span>;
}

/** Content as it stands in a message or a result: text, or blocks of it. */
export function Content({ content }: { content: Json | undefined }) {
  if (content === null || content === undefined || content === "") return null;
  if (typeof content === "string") return <pre><Terminal text={content} /></pre>;
  if (!Array.isArray(content)) return <pre>{pretty(content)}</pre>;
  return (
    <>
      {(content as readonly Json[]).map((block, index) => {
        const image = imageOf(block);
        if (image !== null) return <Picture key={index} reference={image} />;
        const text = textOf(block);
        return <pre key={index}>{text === null ? pretty(block) : <Terminal text={text} />}</pre>;
      })}
    </>
  );
}

export const isBlank = (content: Json | undefined): boolean =>
  content === null || content === undefined || content === "" || (Array.isArray(content) && content.length === 0);

/** What an observation shows: its images, and its text. */
export function observed(content: Json | undefined): { images: string[]; text: string } {
  if (typeof content === "string") return { images: [], text: content };
  const blocks = Array.isArray(content) ? content as readonly Json[] : null;
  if (!blocks?.every((block) => isObject(block) && block.type)) return { images: [], text: content === null || content === undefined ? "" : pretty(content) };
  return {
    images: blocks.map(imageOf).filter((image) => image),
    text: blocks.map(textOf).filter((text) => text !== null).join("\n"),
  } as { images: string[]; text: string };
}

const CLIPPED_LINES = 28;
const CLIPPED_LENGTH = 3000;

/** Shows the beginning of what is long, and all of it when asked to. */
export function Clipped({ class: name, children }: { class: string; children: ComponentChildren }) {
  const box = useRef<HTMLDivElement>(null);
  const [long, setLong] = useState(false);
  useLayoutEffect(() => {
    const text = box.current?.textContent ?? "";
    if (text.length >= CLIPPED_LENGTH || text.split("\n").length > CLIPPED_LINES) setLong(true);
  }, []);
  const all = (event: Event): void => {
    event.stopPropagation();
    setLong(false);
  };
  return (
    <>
      <div ref={box} class={long ? `${name} clipped` : name}>{children}</div>
      {long ? <button type="button" class="unclip" onClick={all}>Show all</button> : null}
    </>
  );
}

/** A value on one line. */
export const short = (value: unknown): string => JSON.stringify(value);

/** A call as one would write it. */
export function Call({ tool, args }: { tool: string; args: unknown }) {
  const list = typeof args === "object" && args !== null && !Array.isArray(args)
    ? Object.entries(args).map(([key, value]) => `${key}: ${short(value)}`).join(", ")
    : typeof args === "string" ? args : args === null || args === undefined ? "" : short(args);
  return <code><span class="tool">{tool}</span>({list})</code>;
}
