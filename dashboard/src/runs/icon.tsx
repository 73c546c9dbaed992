const ICONS = {
  first: "M3 3v10M13 3L6 8l7 5z", back: "M12 3L5 8l7 5z", play: "M4 2.5v11l9-5.5z", pause: "M4 3h3v10H4zM9 3h3v10H9z",
  on: "M4 3l7 5-7 5z", last: "M13 3v10M3 3l7 5-7 5z",
} as const;

export type IconName = keyof typeof ICONS;

export function Icon({ name }: { name: IconName }) {
  return <svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d={ICONS[name]} /></svg>;
}
