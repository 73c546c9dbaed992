import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Picture, Session } from "../live/session.ts";
import { Panel } from "../parts/basics.tsx";

const STRIP = 48;

/** The environment's frames: the last one as it comes, or one that the reader holds. */
export function Screen({ session }: { session: Session }) {
  const held = useSignal<number | null>(null);
  const pictures = session.pictures.value;
  const place = held.value === null ? pictures.length - 1 : Math.max(0, pictures.findIndex((one) => one.number === held.value));
  const shown = pictures[place];
  if (!shown) return null;
  const to = (next: number) => {
    const wish = pictures[Math.max(0, next)];
    held.value = wish && next < pictures.length - 1 ? wish.number : null;
  };
  return (
    <Panel
      title="Screen" class="player"
      beside={<>
        <span class="soft">{place + 1} of {pictures.length}<span class="wide"> {pictures.length === 1 ? "frame" : "frames"}</span></span><span class="grow" />
        <button type="button" class="button" aria-label="Frame before" onClick={() => to(place - 1)} disabled={place === 0}>‹</button>
        <button type="button" class="button" aria-label="Frame after" onClick={() => to(place + 1)} disabled={held.value === null}>›</button>
        <button type="button" class="button" aria-pressed={held.value === null} onClick={() => { held.value = null; }}>
          <span class={`live ${held.value === null ? "on" : ""}`} aria-hidden="true" />Live
        </button>
      </>}
    >
      <div
        class="screen" tabIndex={0} role="group" aria-label="Frames; left and right go through them, End follows the last"
        onKeyDown={(event) => {
          const step = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: pictures.length }[event.key];
          if (step === undefined) return;
          event.preventDefault();
          to(step);
        }}
      >
        <img src={shown.url} alt={`frame ${place + 1}, of message ${shown.n}`} class={small(shown.url) ? "pixels" : ""} />
      </div>
      <Strip pictures={pictures.slice(-STRIP)} shown={shown} following={held.value === null} onHold={(number) => { held.value = number; }} />
    </Panel>
  );
}

/** The last frames, small; for those who point. */
function Strip({ pictures, shown, following, onHold }: {
  pictures: readonly Picture[];
  shown: Picture;
  following: boolean;
  onHold: (number: number) => void;
}) {
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (box.current && following) box.current.scrollLeft = box.current.scrollWidth;
  }, [pictures.at(-1), following]);
  return (
    <div ref={box} class="strip" aria-hidden="true">
      {pictures.map((one) => (
        <button key={one.number} type="button" tabIndex={-1} class={one === shown ? "current" : ""} onClick={() => onHold(one.number)}>
          <img src={one.url} alt="" />
        </button>
      ))}
    </div>
  );
}

/** A picture of few bytes is one of few pixels, which are to stay square when it is made larger. */
function small(url: string): boolean {
  return url.length < 2000;
}
