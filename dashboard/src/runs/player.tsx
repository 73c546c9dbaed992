import { useComputed, useSignal, type Signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { Call, observed, Terminal } from "./content.tsx";
import { type Details, type Episode, rewardOf, type Step } from "./data.ts";
import { Icon, type IconName } from "./icon.tsx";
import { useKeys } from "./keys.ts";
import { memo } from "./memo.ts";
import { Rail } from "./rail.tsx";
import { useHere } from "./source.ts";
import { Earned } from "./story.tsx";
import { colorOf, signOf } from "./words.tsx";

/** What was to be seen at the start, and then after each step. */
export interface Frame {
  readonly step: Step | null;
  readonly images: readonly string[];
  readonly text: string;
  /** Of the rewards so far. */
  readonly total: number;
  /** Whether nothing is known of what there was. */
  readonly missing: boolean;
}

function framesOf(details: Details): readonly Frame[] {
  const start = details.initial_state;
  const first = { ...(start ? observed(start.observation) : { images: [], text: "" }), step: null, total: 0, missing: !start };
  let total = 0;
  return [first, ...details.steps.map((step) => {
    total += rewardOf(step) ?? 0;
    return { ...observed(step.content), step, total, missing: false };
  })];
}

/** Plays an episode, frame by frame; `at` is the one that is shown. */
export function Player({ details, episode, at }: { details: Details; episode: Episode; at: Signal<number> }) {
  const { run } = useHere();
  const frames = useMemo(() => framesOf(details), [details]);
  const filmed = useMemo(() => frames.some(({ images }) => images.length > 0), [frames]);
  const speed = useSignal(4);
  const playing = useSignal(false);
  const speedField = useRef<HTMLSelectElement>(null);
  const last = frames.length - 1;
  const place = Math.min(at.value, last);
  const frame = frames[place] ?? frames[0];

  const seek = (frame: number): void => { at.value = Math.max(0, Math.min(last, frame)); };
  const toggle = (): void => {
    if (!playing.value && at.value >= last) at.value = 0;
    speed.value = Number(speedField.current?.value ?? speed.value);
    playing.value = !playing.value;
  };
  useEffect(() => {
    if (!playing.value) return undefined;
    const timer = setInterval(() => {
      if (at.value < last) at.value++;
      else playing.value = false;
    }, 1000 / speed.value);
    return () => clearInterval(timer);
  }, [playing.value, speed.value, last]);
  useKeys({
    ArrowRight: () => seek(at.value + 1), ArrowLeft: () => seek(at.value - 1), Home: () => seek(0), End: () => seek(last), " ": toggle,
  });
  useCurrentRow(place, playing);

  if (!frame) return null;
  return (
    <section class="panel player" aria-label="Player">
      <Screen frame={frame} />
      {filmed ? <div class="said mono" tabIndex={0}><Terminal text={frame.images.length ? frame.text : ""} /></div> : null}
      <div class="doing">{frame.step ? <Call tool={frame.step.tool} args={frame.step.arguments} /> : <span class="zero">the start</span>}</div>
      <div class="controls">
        <Control name="First" icon="first" onClick={() => seek(0)} />
        <Control name="Back" icon="back" onClick={() => seek(at.value - 1)} />
        <Control name={playing.value ? "Pause" : "Play"} icon={playing.value ? "pause" : "play"} onClick={toggle} />
        <Control name="On" icon="on" onClick={() => seek(at.value + 1)} />
        <Control name="Last" icon="last" onClick={() => seek(last)} />
        <select ref={speedField} class="field" aria-label="Speed" onChange={(event) => { speed.value = Number(event.currentTarget.value); }}>
          {[1, 2, 4, 8, 16].map((value) => <option key={value} value={value} selected={value === 4}>{value} / s</option>)}
        </select>
        <span class="grow" />
        <span class="soft">{last ? `${place ? `step ${place - 1}` : "start"} / ${last - 1}` : ""}</span>
      </div>
      <Strip frames={frames} at={at} onSeek={seek} />
      <div class="plane">
        <h2>Control plane</h2>
        <div>{frame.step ? <Earned value={rewardOf(frame.step)} total={frame.total} /> : <span class="none">nothing earned yet</span>}</div>
        <Rail totals={frames.map(({ total }) => total)} kind={colorOf(run, episode.env)} at={place} onSeek={seek} />
      </div>
    </section>
  );
}

function Control({ name, icon, onClick }: { name: string; icon: IconName; onClick: () => void }) {
  return <button type="button" class="button" aria-label={name} title={name} onClick={onClick}><Icon name={icon} /></button>;
}

const SMALL = 160;

function Screen({ frame: { images: [image], text, missing } }: { frame: Frame }) {
  const { source, run } = useHere();
  const url = image ? source.image(run, image) : null;
  // Pixels of a small picture stay pixels.
  const judge = (event: { currentTarget: HTMLImageElement }): void => {
    event.currentTarget.classList.toggle("small", event.currentTarget.naturalWidth < SMALL);
  };
  if (url) return <div class="screen"><img alt="What the agent saw" src={url} onLoad={judge} /></div>;
  if (image) return <div class="screen"><div class="note">This report has no room for the image: <code>{image}</code></div></div>;
  if (text) return <div class="screen"><pre tabIndex={0}><Terminal text={text} /></pre></div>;
  return <div class="screen"><div class="note">{missing ? "Nothing was shown before the first step." : "Nothing was shown."}</div></div>;
}

/** All frames one beside the other; the one that is shown is marked, and in sight. */
function Strip({ frames, at, onSeek }: { frames: readonly Frame[]; at: Signal<number>; onSeek: (frame: number) => void }) {
  const box = useRef<HTMLDivElement>(null);
  const place = useComputed(() => Math.min(at.value, frames.length - 1)).value;
  useLayoutEffect(() => {
    const strip = box.current;
    const cell = strip?.children[place];
    if (!strip || !(cell instanceof HTMLElement)) return undefined;
    cell.setAttribute("aria-current", "true");
    strip.scrollLeft = cell.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + cell.clientWidth / 2;
    return () => cell.removeAttribute("aria-current");
  }, [place, frames]);
  return <div ref={box} class="strip"><Cells frames={frames} onSeek={useMemo(() => (index: number) => onSeek(index), [frames])} /></div>;
}

const Cells = memo(function Cells({ frames, onSeek }: { frames: readonly Frame[]; onSeek: (frame: number) => void }) {
  const { source, run } = useHere();
  return (
    <>
      {frames.map(({ images: [image], step }, index) => {
        const url = image ? source.image(run, image) : null;
        return (
          <button key={index} type="button" class="cell" aria-label={index ? `Step ${index - 1}` : "Start"} onClick={() => onSeek(index)}>
            {url ? <img src={url} alt="" loading="lazy" decoding="async" /> : null}
            <div class={`tick ${step ? signOf(rewardOf(step)) : "zero"}`}>{index ? index - 1 : "start"}</div>
          </button>
        );
      })}
    </>
  );
});

const HEADS = 60;

/** Marks the step of the frame in the conversation, and after the first time brings it into sight. */
function useCurrentRow(place: number, playing: Signal<boolean>): void {
  const moved = useRef(false);
  useLayoutEffect(() => {
    const first = !moved.current;
    moved.current = true;
    const row = place ? document.querySelector(`.row.step[data-step="${place - 1}"]`) : null;
    if (!row) return undefined;
    row.classList.add("current");
    const { top, bottom } = row.getBoundingClientRect();
    if (!first && (top < HEADS || bottom > innerHeight)) {
      const far = top < -innerHeight || bottom > 2 * innerHeight;
      row.scrollIntoView({ block: "center", behavior: playing.value || far ? "auto" : "smooth" });
    }
    return () => row.classList.remove("current");
  }, [place]);
}
