import { useEffect } from "preact/hooks";
import { Empty, Panel } from "../parts/basics.tsx";
import { link, route } from "../route.ts";
import { Difference } from "./difference.tsx";
import { EpisodePage } from "./episode.tsx";
import { Overview } from "./overview.tsx";
import { placeOf, type Place } from "./places.ts";
import { SideBySide } from "./side_by_side.tsx";
import { RunContext, type Source } from "./source.ts";
import { hideTip, Tip } from "./tip.tsx";
import { Top } from "./top.tsx";

/** The pages of runs, from wherever these come. */
export function Runs({ source }: { source: Source }) {
  const runs = source.runs.value;
  const place = runs.length ? placeOf(route.value, runs) : null;
  const title = place ? titleOf(place) : "muxsim runs";
  useEffect(() => { document.title = title; }, [title]);
  useEffect(hideTip, [route.value]);
  return (
    <div class="page">
      <main id="main" tabIndex={-1}>
        <Lost source={source} />
        {runs.length ? <Page source={source} place={place} /> : <><Top /><Panel><Empty>Reading the runs…</Empty></Panel></>}
      </main>
      <Tip />
    </div>
  );
}

function Page({ source, place }: { source: Source; place: Place | null }) {
  if (!place) return <><Top /><Panel><Empty>There is no such page. <a href={link()}>All runs</a></Empty></Panel></>;
  if (place.is === "all") return <SideBySide runs={source.runs.value} comparison={source.comparison.value} />;
  if (place.is === "difference") return <Difference one={place.one} other={place.other} />;
  const { run } = place;
  return (
    <RunContext.Provider value={{ source, run }}>
      {place.is === "run"
        ? <><Top>{source.runs.value.length > 1 ? <a class="button" href={link()}>← All runs</a> : <span>run</span>}</Top><Overview key={run.key} run={run} /></>
        : <EpisodePage id={place.id} />}
    </RunContext.Provider>
  );
}

function Lost({ source: { connection, runs } }: { source: Source }) {
  const now = connection.value;
  if (now.is !== "lost") return null;
  const kept = runs.value.length ? " What is shown is what came last." : "";
  return <p class="lost" role="status">Nothing answers here any more ({now.why}).{kept} It is asked again every few seconds.</p>;
}

function titleOf(place: Place): string {
  if (place.is === "all") return "muxsim runs";
  if (place.is === "difference") return `${place.one.name} → ${place.other.name} · muxsim runs`;
  return place.is === "run" ? `${place.run.name} · muxsim run` : `${place.id} · ${place.run.name}`;
}
