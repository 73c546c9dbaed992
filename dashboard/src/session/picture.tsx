import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { ask } from "../access.ts";
import type { Image } from "../feed.ts";
import { path, PIXELS, type Session } from "../live/session.ts";
import { bytes } from "../numbers.ts";

/** An image of a message: as it came by itself, or else fetched when the reader asks for it. */
export function PictureOf({ session, image }: { session: Session; image: Image }) {
  const fetched = useSignal("");
  const came = session.pictures.value.find((one) => one.number === image.number);
  const id = session.told.value?.id ?? "";
  useEffect(() => () => { if (fetched.value) URL.revokeObjectURL(fetched.value); }, []);
  const what = `${image.mime}, ${bytes(image.bytes)}`;
  const url = came?.url ?? fetched.value;
  if (url) return <img src={url} alt={what} />;
  if (!PIXELS.test(image.mime)) return <p class="soft">{what}</p>;
  const load = async () => {
    const response = await ask(`${path(id)}/images/${image.number}`);
    if (response.ok) fetched.value = URL.createObjectURL(new Blob([await response.arrayBuffer()], { type: image.mime }));
  };
  return <button type="button" class="button" onClick={() => void load()}>Show image ({what})</button>;
}
