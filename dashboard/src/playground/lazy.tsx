import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import { Alert } from "../parts/basics.tsx";

const page = signal<ComponentType | null>(null);
const problem = signal("");

/** The playground, which is loaded when somebody opens it: the client that it brings is larger than all the rest. */
export function Playground() {
  useEffect(() => {
    import("./page.tsx").then((loaded) => { page.value = loaded.default; }, (error: unknown) => { problem.value = String(error); });
  }, []);
  const Page = page.value;
  if (Page) return <Page />;
  return problem.value ? <Alert title="The playground could not be loaded"><p>{problem.value}</p></Alert> : <p class="soft" role="status">Loading …</p>;
}
