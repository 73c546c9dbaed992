// What the clients do. A scenario returns JSON in which nothing differs from run to run, whatever the SDK,
// the transport and the proxies between: that JSON is what the tests compare.

import { callEverything } from './everything.mjs';
import { serveTheServer, serverRequests } from './server_requests.mjs';

const LONG = 'trigger-long-running-operation'; // takes `duration` seconds and reports progress `steps` times

const NOTHING = () => ({ capabilities: {}, answers: {} });

/** A scenario: what the client can do (made anew for each run), and the run itself. */
export const SCENARIOS = {
  play: { client: NOTHING, run: play },
  everything: { client: NOTHING, run: ({ session }) => callEverything(session) },
  sampling: { client: serveTheServer, run: serverRequests },
  progress: { client: NOTHING, run: progress },
  cancel: { client: NOTHING, run: cancel },
  listen: { client: NOTHING, run: listen },
};

/** Any environment: calls a tool with each set of arguments, and reads the control plane before and after. */
async function play({ session, options }) {
  const { client } = session;
  const tools = (await client.listTools()).tools.map(({ name }) => name);
  const before = await readControl(client);
  const steps = [];
  for (const args of options.arguments) {
    const params = { name: options.tool, arguments: args, ...(options.meta && { _meta: options.meta }) };
    steps.push(stepOf(await session.call(params)));
  }
  return { tools, before, steps, after: await readControl(client) };
}

function stepOf({ content, isError = false, structuredContent, _meta }) {
  const control = _meta?.['muxsim/control'];
  return {
    text: content.filter(({ type }) => type === 'text').map(({ text }) => text).join('\n'),
    others: content.filter(({ type }) => type !== 'text').map(({ type, mimeType }) => ({ type, mimeType })),
    is_error: isError,
    ...(structuredContent && { structured: structuredContent }),
    ...(control && { control }),
  };
}

/** @returns every `control://` resource that is listed, by its name: `{reward: {reward: 0, step: 0}, …}` */
async function readControl(client) {
  if (client.getServerCapabilities()?.resources === undefined) return {};
  const { resources } = await client.listResources();
  const control = {};
  for (const { uri } of resources.filter((resource) => resource.uri.startsWith('control://'))) {
    const { contents } = await client.readResource({ uri });
    control[uri.slice('control://'.length)] = JSON.parse(contents[0].text);
  }
  return control;
}

/** server-everything: a call that takes a second and reports its progress. */
async function progress({ session }) {
  const steps = 5;
  const reports = [];
  const params = { name: LONG, arguments: { duration: 1, steps } };
  const { content } = await session.call(params, { onprogress: (report) => reports.push(report) });
  // Both SDKs lose the last report when it arrives in one chunk with the result.
  return { reports: reports.filter((report) => report.progress < steps), text: content[0].text };
}

/** server-everything: a call is given up after its first progress; the session goes on. */
async function cancel({ session }) {
  const aborting = new AbortController();
  const params = { name: LONG, arguments: { duration: 20, steps: 100 } };
  const outcome = await session
    .call(params, { signal: aborting.signal, onprogress: () => aborting.abort('enough') })
    .then(() => 'answered', () => (aborting.signal.aborted ? 'given up' : 'failed'));
  await session.client.ping();
  const { content } = await session.call({ name: 'echo', arguments: { message: 'still here' } });
  return { outcome, afterwards: content[0].text };
}

/** server-everything: what it says without being asked, which over HTTP comes on the standing stream. */
async function listen({ session, heard }) {
  const { client } = session;
  const document = 'demo://resource/static/document/features.md';
  await client.setLoggingLevel('debug');

  await session.call({ name: 'toggle-simulated-logging', arguments: {} });
  const log = await heard.first('notifications/message', ({ data }) => /level/i.test(data));
  await session.call({ name: 'toggle-simulated-logging', arguments: {} });

  await client.subscribeResource({ uri: document });
  await session.call({ name: 'toggle-subscriber-updates', arguments: {} });
  const updated = await heard.first('notifications/resources/updated');
  await session.call({ name: 'toggle-subscriber-updates', arguments: {} });
  await client.unsubscribeResource({ uri: document });

  const file = { name: 'hello.gz', data: 'data:text/plain,hello', outputType: 'resourceLink' };
  const { content } = await session.call({ name: 'gzip-file-as-resource', arguments: file });
  const changed = await heard.first('notifications/resources/list_changed');
  const listed = (await client.listResources()).resources.map(({ uri }) => uri);
  return {
    logged: typeof log.params.level === 'string',
    updated: updated.params.uri,
    list_changed: changed.method,
    new_resource: content[0].uri,
    new_resource_listed: listed.includes(content[0].uri),
  };
}
