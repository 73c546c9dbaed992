import type { ComponentChildren, JSX } from "preact";

export type Mood = "plain" | "good" | "bad" | "warn" | "";

/** A short word with a color that says how it is meant. */
export function Chip({ mood = "", children }: { mood?: Mood; children: ComponentChildren }) {
  return <span class={`chip ${mood}`}>{children}</span>;
}

/** A box with a heading, and beside that what belongs to all of it. */
export function Panel({ title, beside, class: more = "", children, ...rest }: {
  title?: ComponentChildren;
  beside?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
} & Omit<JSX.IntrinsicElements["section"], "title" | "class">) {
  return (
    <section class={`panel ${more}`} {...rest}>
      {title === undefined ? null : <header><h2>{title}</h2>{beside}</header>}
      {children}
    </section>
  );
}

/** What there is to say where nothing is shown. */
export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** Something went wrong, or, mildly, is not as one would expect. */
export function Alert({ title, mild = false, children }: { title: string; mild?: boolean; children?: ComponentChildren }) {
  return (
    <section class={`panel alert ${mild ? "mild" : ""}`} role="status">
      <h2>{title}</h2>
      {children}
    </section>
  );
}

/** The colored dot of the environment that is the `place`th of all. */
export function Dot({ place }: { place: number }) {
  return <span class={`dot k${Math.max(0, place) % 6}`} aria-hidden="true" />;
}
