// server-everything, one of each: tools with every kind of content, prompts, completions, resources, errors.

import { createHash } from 'node:crypto';

/** @returns lists, results and errors, with times of day and long payloads made short */
export async function callEverything(session) {
  const { client } = session;
  return {
    tools: names((await client.listTools()).tools),
    prompts: names((await client.listPrompts()).prompts),
    resources: names((await client.listResources()).resources),
    templates: names((await client.listResourceTemplates()).resourceTemplates),
    calls: await callTools(session),
    prompted: await getPrompts(client),
    completed: await complete(client),
    read: await readResources(client),
    errors: await makeErrors(session),
  };
}

function names(list) {
  return list.map(({ name }) => name).sort();
}

async function callTools(session) {
  const calls = [
    ['echo', { message: 'grüße, 你好, \u{1f3b2}\u2028' }],
    ['get-sum', { a: 2, b: 40 }],
    ['get-tiny-image', {}],
    ['get-annotated-message', { messageType: 'error', includeImage: true }],
    ['get-structured-content', { location: 'Chicago' }],
    ['get-resource-links', { count: 2 }],
    ['get-resource-reference', { resourceType: 'Text', resourceId: 3 }],
    ['get-sum', { a: 'two', b: 40 }], // against its schema: a tool error
  ];
  const results = [];
  for (const [name, args] of calls) results.push(shorten(await session.call({ name, arguments: args })));
  return results;
}

async function getPrompts(client) {
  const prompts = [
    { name: 'simple-prompt' },
    { name: 'args-prompt', arguments: { city: 'Zürich' } },
    { name: 'resource-prompt', arguments: { resourceType: 'Text', resourceId: '1' } },
  ];
  const results = [];
  for (const prompt of prompts) results.push(shorten(await client.getPrompt(prompt)));
  return results;
}

async function complete(client) {
  const ref = { type: 'ref/prompt', name: 'completable-prompt' };
  const department = await client.complete({ ref, argument: { name: 'department', value: 'S' } });
  const context = { arguments: { department: 'Sales' } };
  const name = await client.complete({ ref, argument: { name: 'name', value: '' }, context });
  return [department.completion.values, name.completion.values];
}

async function readResources(client) {
  const results = [];
  for (const path of ['static/document/features.md', 'dynamic/text/7', 'dynamic/blob/8']) {
    results.push(shorten(await client.readResource({ uri: `demo://resource/${path}` })));
  }
  return results;
}

async function makeErrors(session) {
  const attempts = [
    () => session.call({ name: 'no-such-tool', arguments: {} }),
    () => session.client.readResource({ uri: 'demo://no/such/resource' }),
    () => session.client.getPrompt({ name: 'args-prompt', arguments: {} }),
  ];
  const results = [];
  for (const attempt of attempts) {
    const failed = ({ code, message }) => ({ code, message: withoutCode(message) });
    results.push(await attempt().then(shorten, failed));
  }
  return results;
}

/** The first SDK puts the code in front of a message, at both ends; the second does not. */
function withoutCode(message) {
  return message.replace(/^(MCP error -\d+: )+/, '');
}

function sha256(text) {
  return createHash('sha256').update(text).digest('hex');
}

/** @returns the same JSON, with a digest for each long string and `<time>` for each time of day */
function shorten(value) {
  return JSON.parse(JSON.stringify(value), (key, item) => {
    if (typeof item !== 'string') return item;
    if (key === 'blob') return shorten(`base64 of ${Buffer.from(item, 'base64').toString()}`);
    if (item.length > 300) return `${item.length} characters, sha256 ${sha256(item)}`;
    return item.replace(/(?<=created at ).*/, '<time>');
  });
}
