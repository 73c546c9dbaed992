import { signal } from "@preact/signals";

/** The reader's token. It is nowhere but here: a page that is loaded again asks again. */
export const token = signal<string | null>(null);
/** Why a token is asked for; null while none is. A server that will refuse whoever has none says so in its page. */
export const wanted = signal<string | null>(document.documentElement.dataset.tokens === undefined ? null : "");

/** Ask the server that the page comes from, with the reader's token. `path` is relative to the page. */
export async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (token.value !== null) headers.set("Authorization", `Bearer ${token.value}`);
  return fetch(new URL(path, document.baseURI), { ...init, headers, credentials: "omit", cache: "no-store", redirect: "error" });
}

/** What a refusal says, for people. */
export async function reason(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const said = JSON.parse(text) as { error?: string | { message?: string }; message?: string };
    const message = typeof said.error === "string" ? said.error : said.error?.message ?? said.message;
    if (message) return message;
  } catch {
    // Not of ours: a proxy's page, say.
  }
  return text.slice(0, 500) || `HTTP ${response.status}`;
}

/** Use this token from now on. */
export function signIn(given: string): void {
  token.value = given.trim();
  wanted.value = null;
}

/** Forget the token, and everything that was seen with it. */
export function signOut(): void {
  token.value = null;
  location.reload();
}
