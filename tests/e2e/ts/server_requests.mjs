// server-everything asks its client: for a sampled message, for a form, for a visit to a URL, for its roots.

const HAIKU = { type: 'text', text: 'a haiku' };
const SAMPLED = { role: 'assistant', model: 'scripted', stopReason: 'endTurn', content: HAIKU };
const FORM = { name: 'Ada', check: true, email: 'ada@example.org', integer: 7 };
const FORM_ANSWERS = [{ action: 'accept', content: FORM }, { action: 'decline' }, { action: 'cancel' }];
const LINK = { url: 'https://example.org/consent', message: 'Please agree', elicitationId: 'link-1' };
const ROOTS = [{ uri: 'file:///tmp/one', name: 'one' }];
const MORE_ROOTS = [...ROOTS, { uri: 'file:///tmp/two', name: 'two' }];

/** A client with every capability that a server can call upon. */
export function serveTheServer() {
  const forms = [...FORM_ANSWERS];
  const roots = [...ROOTS];
  return {
    capabilities: { sampling: {}, elicitation: { form: {}, url: {} }, roots: { listChanged: true } },
    roots,
    answers: {
      'sampling/createMessage': () => SAMPLED,
      'elicitation/create': ({ mode }) => (mode === 'url' ? { action: 'accept' } : forms.shift()),
      'roots/list': () => ({ roots: [...roots] }),
    },
  };
}

/** @returns what the handlers were asked, and what the tools answered */
export async function serverRequests({ session, heard, abilities }) {
  const { client } = session;
  const call = async (name, args = {}) => {
    const { content } = await session.call({ name, arguments: args });
    return content.map(({ text }) => text);
  };
  const tools = (await client.listTools()).tools.map(({ name }) => name);
  const answers = {
    sampling: lastJson(await call('trigger-sampling-request', { prompt: 'a haiku, please', maxTokens: 20 })),
    accepted: await form(call),
    declined: await form(call),
    cancelled: await form(call),
    link: await call('trigger-url-elicitation', LINK),
    link_required: await linkRequired(session),
    roots: await rootsOf(call),
  };
  abilities.roots.splice(0, Infinity, ...MORE_ROOTS);
  await client.sendRootsListChanged();
  await heard.first('notifications/message', ({ data }) => data.includes('2 root(s)')); // it has asked again
  return {
    tools: tools.filter((name) => /^(trigger-(sampling|elicitation|url)|get-roots)/.test(name)).sort(),
    asked: [...heard.all('sampling/createMessage'), ...heard.all('elicitation/create')].map(question),
    asked_for_roots: heard.all('roots/list').length >= 2,
    answers: { ...answers, more_roots: await rootsOf(call) },
  };
}

async function form(call) {
  const texts = await call('trigger-elicitation-request');
  return { said: texts.slice(0, -1), raw: lastJson(texts) };
}

async function rootsOf(call) {
  const [text] = await call('get-roots-list');
  return text.match(/URI: \S+/g);
}

/** A tool may answer with the error -32042 instead, which carries the link. */
async function linkRequired(session) {
  const args = { ...LINK, elicitationId: 'link-2', errorPath: true };
  try {
    return { answered: (await session.call({ name: 'trigger-url-elicitation', arguments: args })).content };
  } catch (error) {
    const [{ elicitationId, ...link }] = error.data.elicitations; // the id is random
    return { code: error.code, has_id: typeof elicitationId === 'string', link };
  }
}

function question({ method, params }) {
  const { requestedSchema, messages, message, url, mode, maxTokens, systemPrompt } = params;
  const fields = requestedSchema && Object.keys(requestedSchema.properties);
  return { method, mode, message, url, fields, messages, maxTokens, systemPrompt };
}

function lastJson(texts) {
  const text = texts.at(-1);
  return JSON.parse(text.slice(text.indexOf('{')));
}
