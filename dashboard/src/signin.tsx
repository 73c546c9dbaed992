import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { signIn, wanted } from "./access.ts";
import { watch } from "./live/server.ts";

/** Asks for a token. */
export function SignIn() {
  const given = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  return (
    <form
      class="panel sign-in"
      onSubmit={(event) => {
        event.preventDefault();
        signIn(given.value);
        watch();
      }}
    >
      <h1>Sign in</h1>
      <p class="soft">This muxsim asks for a token. It is kept in this page's memory only, and forgotten with it.</p>
      <label for="token">Token</label>
      <input
        id="token" class="field mono" type="password" autocomplete="off" spellcheck={false} required
        value={given.value} onInput={(event) => { given.value = event.currentTarget.value; }}
        aria-describedby="refused" ref={field}
      />
      <p id="refused" class="refused" role="alert">{wanted.value}</p>
      <button type="submit" class="button main">Sign in</button>
    </form>
  );
}
