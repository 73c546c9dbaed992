import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

const SHOWN = 1600;

/** A button that puts a text on the clipboard, and says so. */
export function Copy({ text, label, children = "Copy" }: { text: string; label: string; children?: ComponentChildren }) {
  const done = useSignal<"" | "Copied" | "Not copied">("");
  useEffect(() => {
    if (!done.value) return undefined;
    const timer = setTimeout(() => { done.value = ""; }, SHOWN);
    return () => clearTimeout(timer);
  }, [done.value]);
  const copy = async () => { done.value = await put(text) ? "Copied" : "Not copied"; };
  return (
    <button type="button" class="button" aria-label={label} title={label} onClick={() => void copy()}>
      {done.value || children}
      <span class="unseen-text" role="status">{done.value}</span>
    </button>
  );
}

/** Browsers give the clipboard itself to pages on https and loopback; others have the old way. */
async function put(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return putBySelection(text);
  }
}

function putBySelection(text: string): boolean {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen-text";
  document.body.append(field);
  field.select();
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- there is no other way without a secure context
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
