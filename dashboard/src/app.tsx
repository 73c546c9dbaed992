import type { ComponentType } from "preact";
import { Empty, Panel } from "./parts/basics.tsx";
import { link, route } from "./route.ts";
import { theme, toggle } from "./theme.ts";

/** A page, by the first part of its route; in the order in which the top of the page names those with a title. */
interface Place {
  readonly title?: string;
  readonly page: ComponentType;
}

const PLACES: Readonly<Record<string, Place>> = {
  "": { title: "Overview", page: Overview },
};

function Overview() {
  return <Panel title="Sessions"><Empty>No session yet.</Empty></Panel>;
}

function Nowhere() {
  return <Panel><Empty>There is no such page. <a href={link()}>Overview</a></Empty></Panel>;
}

function Top({ here }: { here: string }) {
  return (
    <header class="top">
      <a class="brand" href={link()} aria-label="muxsim, overview">mux<span>sim</span></a>
      <nav class="places" aria-label="Pages">
        {Object.entries(PLACES).map(([name, { title }]) => title
          ? <a key={name} href={link(name)} {...(name === here ? { "aria-current": "page" as const } : {})}>{title}</a>
          : null)}
      </nav>
      <span class="grow" />
      <button type="button" class="button" onClick={toggle} aria-label="Dark" aria-pressed={theme.value === "dark"} title="Light or dark">◐</button>
    </header>
  );
}

export function App() {
  const here = route.value[0] ?? "";
  const Page = PLACES[here]?.page ?? Nowhere;
  return (
    <div class="page">
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>
        To the content
      </a>
      <Top here={here} />
      <main id="main" tabIndex={-1}><Page key={here} /></main>
    </div>
  );
}
