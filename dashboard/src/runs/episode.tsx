import { useSignal } from "@preact/signals";
import { useCallback, useEffect, useState } from "preact/hooks";
import { Alert, Empty, Panel } from "../parts/basics.tsx";
import { many, number, seconds } from "../numbers.ts";
import { choiceOf, chosen } from "./choice.ts";
import type { Details, Episode, Run } from "./data.ts";
import { Failure, Facts, Files } from "./facts.tsx";
import { useKeys } from "./keys.ts";
import { open, runLink } from "./places.ts";
import { Player } from "./player.tsx";
import { useHere } from "./source.ts";
import { Story } from "./story.tsx";
import { Top } from "./top.tsx";
import { End, EnvTag, signOf } from "./words.tsx";

/** What has come of an episode; what came last stays until the next is there. */
type Came = { readonly details: Details } | { readonly problem: string };

function useDetails(episode: Episode | undefined): Came | null {
  const { source, run } = useHere();
  const [came, setCame] = useState<Came | null>(null);
  useEffect(() => {
    if (!episode) return undefined;
    let wanted = true;
    const put = (one: Came): void => { if (wanted) setCame(one); };
    source.details(run, episode).then((details) => put({ details }), (error: unknown) => put({ problem: String(error) }));
    return () => { wanted = false; };
    // An episode that is being played is told anew with each step.
  }, [run.key, episode?.id, episode?.steps, episode?.end]);
  return came;
}

export function EpisodePage({ id }: { id: string }) {
  const { run } = useHere();
  const find = (wanted: string) => run.episodes.find((one) => one.id === wanted) ?? run.playing.find((one) => one.id === wanted);
  const episode = find(id);
  const came = useDetails(episode);
  const shown = came && "details" in came ? find(came.details.id) : undefined;
  if (!episode) {
    return <><Top><a class="button" href={runLink(run)}>← All episodes</a></Top><Panel><Empty>There is no episode {id}.</Empty></Panel></>;
  }
  return (
    <>
      <Ways run={run} episode={episode} />
      {came && "problem" in came ? (
        <>
          <div class="title"><h1>{episode.id}</h1></div>
          <Alert title="The episode could not be read"><pre tabIndex={0}>{came.problem}</pre></Alert>
        </>
      ) : null}
      {came && "details" in came && shown ? <Whole key={shown.id} run={run} episode={shown} details={came.details} /> : null}
    </>
  );
}

/** The top of the page, with the ways to the episodes beside this one. */
function Ways({ run, episode }: { run: Run; episode: Episode }) {
  const filtered = chosen(run.episodes, choiceOf(run).value);
  const list = filtered.some(({ index }) => index === episode.index) ? filtered : run.episodes;
  const place = list.findIndex(({ index }) => index === episode.index);
  const go = (by: number): void => {
    const next = list[place + by];
    if (next) open(run, next.id);
  };
  useKeys({ j: () => go(1), k: () => go(-1), Escape: () => open(run) });
  return (
    <Top keys>
      <a class="button" href={runLink(run)}>← All episodes</a>
      {place < 0 ? null : (
        <>
          <button type="button" class="button" disabled={place === 0} onClick={() => go(-1)}>Previous</button>
          <button type="button" class="button" disabled={place === list.length - 1} onClick={() => go(1)}>Next</button>
          <span>{place + 1} of {list.length}</span>
        </>
      )}
    </Top>
  );
}

function Whole({ run, episode, details }: { run: Run; episode: Episode; details: Details }) {
  const at = useSignal(episode.end === null ? Infinity : 0);
  const seek = useCallback((frame: number) => { at.value = frame; }, []);
  useEffect(() => scrollTo(0, 0), []);
  const played = details.steps.length > 0 || details.initial_state !== null;
  return (
    <>
      <div class="title">
        <h1>{episode.id}</h1>
        <End end={episode.end} />
        <span class={`reward ${signOf(episode.reward)}`}>{episode.reward === null ? "no reward" : `reward ${number(episode.reward)}`}</span>
      </div>
      <div class="under">
        <EnvTag run={run} env={episode.env} /><span>seed {episode.seed}</span><span>{many(episode.steps, "step")}</span>
        {episode.end === null ? null : <span>{seconds(episode.seconds)}</span>}
      </div>
      <Failure details={details} episode={episode} />
      <div class="episode">
        <div class="side">
          {played ? <Player details={details} episode={episode} at={at} /> : null}
          <Facts details={details} />
          <Files details={details} />
        </div>
        <Story details={details} onSeek={seek} />
      </div>
    </>
  );
}
