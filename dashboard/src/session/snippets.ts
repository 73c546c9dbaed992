/** How to take part in a session from a shell and from Python. Pure. */

/** A text as one word of a shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

const HEADERS = ["Content-Type: application/json", "Accept: application/json, text/event-stream"];
const HELLO = {
  jsonrpc: "2.0", id: 1, method: "initialize",
  params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "curl", version: "1" } },
};

/**
 * Shell commands that join a session and list its tools; `authorized` says whether they have to name a token, which
 * they take from `MUXSIM_TOKEN`.
 */
export function curl(url: string, authorized: boolean): string {
  const headers = [...HEADERS.map(quoted), ...(authorized ? ['"Authorization: Bearer $MUXSIM_TOKEN"'] : [])];
  const post = (more: readonly string[], body: unknown): string =>
    ["curl -s", ...more, ...headers.map((header) => `-H ${header}`), `-d ${quoted(JSON.stringify(body))}`, quoted(url)].join(" ");
  const joined = '-H "Mcp-Session-Id: $SESSION"';
  return [
    `SESSION=$(${post(["-D - -o /dev/null"], HELLO)} | tr -d '\\r' | sed -n 's/^mcp-session-id: //Ip')`,
    post([joined], { jsonrpc: "2.0", method: "notifications/initialized" }),
    post([joined], { jsonrpc: "2.0", id: 2, method: "tools/list" }),
    "",
  ].join("\n");
}

/** A Python program that does the same. */
export function python(url: string, authorized: boolean): string {
  const where = JSON.stringify(url);
  const imports = authorized ? ["import os", "", "import anyio", "import httpx2"] : ["import anyio"];
  const client = authorized
    ? ['    headers = {"Authorization": f"Bearer {os.environ[\'MUXSIM_TOKEN\']}"}',
      "    async with httpx2.AsyncClient(headers=headers) as http:",
      `        async with Client(streamable_http_client(${where}, http_client=http)) as client:`]
    : [`    async with Client(${where}) as client:`];
  const indent = authorized ? "            " : "        ";
  return [
    ...imports,
    "from mcp.client import Client",
    ...(authorized ? ["from mcp.client.streamable_http import streamable_http_client"] : []),
    "", "",
    "async def main():",
    ...client,
    `${indent}for tool in (await client.list_tools()).tools:`,
    `${indent}    print(tool.name, tool.input_schema)`,
    `${indent}# print(await client.call_tool("<name>", {}))`,
    "", "",
    "anyio.run(main)",
    "",
  ].join("\n");
}
