// A session on @modelcontextprotocol/sdk, the first generation.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
  CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

import { makeTransport } from './transports.mjs';

const REQUESTS = {
  'sampling/createMessage': CreateMessageRequestSchema,
  'elicitation/create': ElicitRequestSchema,
  'roots/list': ListRootsRequestSchema,
};

/**
 * @param options of the command line
 * @param {{capabilities: object, answers: Record<string, (params: any) => object>}} abilities of the client
 * @param {{onNotification: (notification: any) => void, onError: (error: Error) => void}} ears
 */
export async function connect(options, { capabilities, answers }, { onNotification, onError }) {
  const client = new Client({ name: 'muxsim-e2e-v1', version: '0' }, { capabilities });
  for (const [method, answer] of Object.entries(answers)) {
    client.setRequestHandler(REQUESTS[method], async ({ params }) => answer(params));
  }
  client.fallbackNotificationHandler = async (notification) => onNotification(notification);
  client.onerror = onError;
  const transport = makeTransport(options, {
    http: StreamableHTTPClientTransport, sse: SSEClientTransport, stdio: StdioClientTransport,
  });
  let revision;
  const setProtocolVersion = transport.setProtocolVersion?.bind(transport);
  transport.setProtocolVersion = (version) => { // the client keeps it nowhere else
    revision = version;
    setProtocolVersion?.(version);
  };
  await client.connect(transport);
  return {
    client,
    call: (params, requestOptions) => client.callTool(params, undefined, requestOptions),
    revision: () => revision,
    sessionId: () => transport.sessionId,
    terminate: () => transport.terminateSession?.(),
    close: () => client.close(),
  };
}
