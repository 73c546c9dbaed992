import type { ComponentType } from "preact";
import { signOut, token, wanted } from "./access.ts";
import { server, watching } from "./live/server.ts";
import { Overview } from "./overview/page.tsx";
import { Empty, Panel } from "./parts/basics.tsx";
import { Head } from "./parts/head.tsx";
import { Playground } from "./playground/lazy.tsx";
import { link, route } from "./route.ts";
import { SessionPage } from "./session/page.tsx";
import { SignIn } from "./signin.tsx";

/** A page, by the first part of its route; in the order in which the top of the page names those with a title. */
interface Place {
  readonly title?: string;
  readonly page: ComponentType;
}

const PLACES: Readonly<Record<string, Place>> = {
  "": { title: "Overview", page: Overview },
  playground: { title: "Playground", page: Playground },
  session: { page: SessionPage },
};

function Nowhere() {
  return <Panel><Empty>There is no such page. <a href={link()}>Overview</a></Empty></Panel>;
}

function Top({ here }: { here: string }) {
  return (
    <Head home="overview" end={<Who />}>
      <nav class="places" aria-label="Pages">
        {Object.entries(PLACES).map(([name, { title }]) => title
          ? <a key={name} href={link(name)} {...(name === here ? { "aria-current": "page" as const } : {})}>{title}</a>
          : null)}
      </nav>
    </Head>
  );
}

/** Who answers, and as whom the reader is here. */
function Who() {
  const hello = server.hello.value;
  const live = watching.value?.connection.value.is === "open";
  return (
    <>
      {hello ? <>
        <span class="who"><span class={`pulse ${live ? "on" : ""}`} aria-hidden="true" /><span class={live ? "wide" : ""}>{live ? "live" : "not connected"}</span></span>
        <span class="who wide">{hello.name} {hello.version}</span>
        {hello.principal === null ? null : <span class="who">{hello.principal}, {hello.scope.replaceAll(",", ", ")}</span>}
      </> : null}
      {token.value === null || wanted.value !== null ? null : <button type="button" class="button" onClick={signOut}>Sign out</button>}
    </>
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
      <main id="main" tabIndex={-1}>
        {wanted.value !== null ? <SignIn /> : <Page key={here} />}
      </main>
    </div>
  );
}
