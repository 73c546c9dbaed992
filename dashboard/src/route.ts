import { signal } from "@preact/signals";

/** Where the reader is: the parts of `#/a/b`, decoded. Pages are told apart by the first. */
export type Route = readonly string[];

export const route = signal<Route>(parse(location.hash));

addEventListener("hashchange", () => { route.value = parse(location.hash); });

/** The parts of a location's hash; a part that is no text is none. */
export function parse(hash: string): Route {
  return hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded).filter((part) => part !== null);
}

/** The link to a place. */
export function link(...parts: string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** Go there. */
export function go(...parts: string[]): void {
  location.hash = link(...parts);
}

function decoded(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}
