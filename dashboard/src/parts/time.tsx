import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { server } from "../live/server.ts";
import { seconds } from "../numbers.ts";

/** Turns every second while somebody shows an age. */
const second = signal(0);
let shown = 0;
let timer = 0;

function useEverySecond(): number {
  useEffect(() => {
    if (shown++ === 0) timer = window.setInterval(() => { second.value++; }, 1000);
    return () => { if (--shown === 0) clearInterval(timer); };
  }, []);
  return second.value;
}

/** How long ago something was, by the server's clock; its date is in the tip. */
export function Age({ since }: { since: number }) {
  useEverySecond();
  return <time dateTime={iso(since)} title={stamp(since)}>{seconds(Math.max(0, Math.floor(server.now() - since)))}</time>;
}

/** The time of day, here. */
export function clock(time: number): string {
  return new Date(time * 1000).toLocaleTimeString("en-GB");
}

/** Date and time, as one reads them in a log. */
export function stamp(time: number): string {
  return `${iso(time).slice(0, 19).replace("T", " ")} UTC`;
}

function iso(time: number): string {
  const date = new Date(time * 1000);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

/** Seconds until a moment of this machine's clock. */
export function Until({ moment }: { moment: number }) {
  useEverySecond();
  return <>{seconds(Math.max(0, Math.ceil((moment - Date.now()) / 1000)))}</>;
}
