// A session on @modelcontextprotocol/client, the second generation: the handshake or 2026-07-28.

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

import { makeTransport } from './transports.mjs';

/** The same as connect of sdk_v1.mjs. */
export async function connect(options, { capabilities, answers }, { onNotification, onError }) {
  const mode = ['legacy', 'auto'].includes(options.mode) ? options.mode : { pin: options.mode };
  const identity = { name: 'muxsim-e2e-v2', version: '0' };
  const client = new Client(identity, { capabilities, versionNegotiation: { mode } });
  for (const [method, answer] of Object.entries(answers)) {
    client.setRequestHandler(method, async ({ params }) => answer(params));
  }
  client.fallbackNotificationHandler = async (notification) => onNotification(notification);
  client.onerror = onError;
  const transport = makeTransport(options, {
    http: StreamableHTTPClientTransport, sse: SSEClientTransport, stdio: StdioClientTransport,
  });
  await client.connect(transport);
  return {
    client,
    call: (params, requestOptions) => client.callTool(params, requestOptions),
    revision: () => client.getNegotiatedProtocolVersion(),
    sessionId: () => transport.sessionId,
    terminate: () => transport.terminateSession?.(),
    close: () => client.close(),
  };
}
