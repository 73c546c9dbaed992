import type { Stream } from "../live/stream.ts";
import { Alert } from "./basics.tsx";
import { Until } from "./time.tsx";

/** Says so while a stream is lost, that what is shown is what came last, and when it is tried again. */
export function Trouble({ stream, what }: { stream: Stream; what: string }) {
  const connection = stream.connection.value;
  if (connection.is === "refused") return <Alert title={`There is no more to be told of ${what}`} mild><p>{connection.why}</p></Alert>;
  if (connection.is !== "lost") return null;
  return (
    <Alert title={`The connection for ${what} is lost`} mild>
      <p>{connection.why}. What is shown is what came last. Trying again in <Until moment={connection.retryAt} />. <button type="button" class="button" onClick={stream.retry}>Try now</button></p>
    </Alert>
  );
}
