// What the official conformance suite asks a server to have. The suite ships no server of its own: the names, texts and
// schemas below are the ones its scenarios look for. One definition serves every revision and both ways of serving:
// a handler that needs something from the client returns inputRequired(), which 2026-07-28 clients see as it is, and
// which the SDK turns into a request to the client on connections that began with a handshake.

import { setTimeout as sleep } from 'node:timers/promises';

import {
    acceptedContent,
    CLIENT_CAPABILITIES_META_KEY,
    createRequestStateCodec,
    fromJsonSchema,
    inputRequired,
    inputResponse,
    McpServer,
    ResourceTemplate
} from '@modelcontextprotocol/server';

import { AUDIO, IMAGE } from './media.mjs';

// The suite wants messages spread over time, so that they cannot all sit in the answer's first packet.
const PAUSE_MS = 50;
// A call whose stream was closed under it answers well within the 5 s the suite then listens on the reconnected stream.
const WORK_AFTER_CLOSING_MS = 300;
// Where nobody can close the stream (stdio has none), the call must outlast the suite's own patience with it, 10 s, and
// end within the 5 s after that.
export const RECONNECTION_WORK_MS = 11_000;

const ELICIT_NAME = elicitation('What is your name?', { name: { type: 'string' } });
const ASK_CAPITAL = sampling('What is the capital of France?', 100);

function text(value) {
    return { type: 'text', text: value };
}

function textResult(value) {
    return { content: [text(value)] };
}

function elicitation(message, properties, required = Object.keys(properties)) {
    return inputRequired.elicit({ message, requestedSchema: { type: 'object', properties, required } });
}

function sampling(prompt, maxTokens) {
    return inputRequired.createMessage({ messages: [{ role: 'user', content: text(prompt) }], maxTokens });
}

function schema(properties = {}, required = Object.keys(properties)) {
    return fromJsonSchema({ type: 'object', properties, required });
}

/** A server instance. `changes` tells the clients of a changed list: `tools(server)` and `prompts(server)`. */
export function createFixtureServer({ changes, stateKey, reconnectionWorkMs = RECONNECTION_WORK_MS }) {
    const state = createRequestStateCodec({ key: stateKey });
    const server = new McpServer(
        { name: 'muxsim-conformance-fixture', version: '1.0.0' },
        {
            capabilities: {
                tools: { listChanged: true },
                prompts: { listChanged: true },
                resources: { listChanged: true, subscribe: true },
                logging: {},
                completions: {}
            },
            requestState: { verify: state.verify }
        }
    );
    addContentTools(server);
    addNotifyingTools(server, reconnectionWorkMs);
    addClientInputTools(server);
    addSchemaTools(server);
    addStatelessTools(server, changes);
    addInputRequiredTools(server, state);
    addResources(server);
    addPrompts(server);
    addCompletion(server);
    return server;
}

function addContentTools(server) {
    // First in the list: the header scenarios call the first tool they are shown, with no arguments.
    server.registerTool('test_simple_text', { description: 'Returns one text' }, () =>
        textResult('This is a simple text response for testing.')
    );
    server.registerTool('test_image_content', { description: 'Returns one image' }, () => ({ content: [IMAGE] }));
    server.registerTool('test_audio_content', { description: 'Returns one sound' }, () => ({ content: [AUDIO] }));
    server.registerTool('test_embedded_resource', { description: 'Returns one embedded resource' }, () => ({
        content: [
            {
                type: 'resource',
                resource: {
                    uri: 'test://embedded-resource',
                    mimeType: 'text/plain',
                    text: 'This is an embedded resource content.'
                }
            }
        ]
    }));
    server.registerTool('test_multiple_content_types', { description: 'Returns a text, an image and a resource' }, () => ({
        content: [
            text('Multiple content types test:'),
            IMAGE,
            {
                type: 'resource',
                resource: {
                    uri: 'test://mixed-content-resource',
                    mimeType: 'application/json',
                    text: JSON.stringify({ test: 'data', value: 123 })
                }
            }
        ]
    }));
    server.registerTool('test_error_handling', { description: 'Always fails' }, () => {
        throw new Error('This tool intentionally returns an error for testing');
    });
}

function addNotifyingTools(server, reconnectionWorkMs) {
    server.registerTool('test_tool_with_logging', { description: 'Logs three times' }, async ctx => {
        await ctx.mcpReq.log('info', 'Tool execution started');
        await sleep(PAUSE_MS);
        await ctx.mcpReq.log('info', 'Tool processing data');
        await sleep(PAUSE_MS);
        await ctx.mcpReq.log('info', 'Tool execution completed');
        return textResult('Logged three messages');
    });
    server.registerTool('test_tool_with_progress', { description: 'Reports progress three times' }, async ctx => {
        const progressToken = ctx.mcpReq._meta?.progressToken;
        for (const progress of [0, 50, 100]) {
            if (progressToken !== undefined) {
                const params = { progressToken, progress, total: 100 };
                await ctx.mcpReq.notify({ method: 'notifications/progress', params });
            }
            await sleep(PAUSE_MS);
        }
        return textResult('Reported progress to the end');
    });
    server.registerTool('test_reconnection', { description: 'Closes its stream and answers later' }, async ctx => {
        const closeStream = ctx.http?.closeSSE;
        closeStream?.();
        await sleep(closeStream ? WORK_AFTER_CLOSING_MS : reconnectionWorkMs);
        return textResult('Reconnection test completed');
    });
}

function addClientInputTools(server) {
    server.registerTool(
        'test_sampling',
        { description: 'Asks the client for a completion', inputSchema: schema({ prompt: { type: 'string' } }) },
        ({ prompt }, ctx) => {
            const answer = inputResponse(ctx.mcpReq.inputResponses, 'answer');
            return answer.kind === 'sampling'
                ? textResult(`LLM response: ${JSON.stringify(answer.result.content)}`)
                : inputRequired({ inputRequests: { answer: sampling(prompt, 100) } });
        }
    );
    const properties = {
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" }
    };
    server.registerTool(
        'test_elicitation',
        { description: 'Asks the user for a name and an address', inputSchema: schema({ message: { type: 'string' } }) },
        ({ message }, ctx) => elicitOnce(ctx, elicitation(message, properties))
    );
    server.registerTool('test_elicitation_sep1034_defaults', { description: 'Asks with default values' }, ctx =>
        elicitOnce(ctx, elicitation('Please review these values', DEFAULTED_PROPERTIES, []))
    );
    server.registerTool('test_elicitation_sep1330_enums', { description: 'Asks with every kind of choice' }, ctx =>
        elicitOnce(ctx, elicitation('Please choose', ENUM_PROPERTIES, []))
    );
}

function elicitOnce(ctx, request) {
    const answer = inputResponse(ctx.mcpReq.inputResponses, 'answer');
    if (answer.kind !== 'elicit') {
        return inputRequired({ inputRequests: { answer: request } });
    }
    return textResult(`Elicitation completed: action=${answer.action}, content=${JSON.stringify(answer.content)}`);
}

const DEFAULTED_PROPERTIES = {
    name: { type: 'string', default: 'John Doe' },
    age: { type: 'integer', default: 30 },
    score: { type: 'number', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', default: true }
};

function titledOptions(noun) {
    return ['First', 'Second', 'Third'].map((rank, index) => ({ const: `value${index + 1}`, title: `${rank} ${noun}` }));
}

const ENUM_PROPERTIES = {
    untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
    titledSingle: { type: 'string', oneOf: titledOptions('Option') },
    legacyEnum: {
        type: 'string',
        enum: ['opt1', 'opt2', 'opt3'],
        enumNames: ['Option One', 'Option Two', 'Option Three']
    },
    untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
    titledMulti: { type: 'array', items: { anyOf: titledOptions('Choice') } }
};

function addSchemaTools(server) {
    server.registerTool(
        'json_schema_2020_12_tool',
        {
            description: 'Tool with JSON Schema 2020-12 features',
            inputSchema: fromJsonSchema({
                $schema: 'https://json-schema.org/draft/2020-12/schema',
                type: 'object',
                $defs: {
                    address: {
                        $anchor: 'addressDef',
                        type: 'object',
                        properties: { street: { type: 'string' }, city: { type: 'string' } }
                    }
                },
                properties: {
                    name: { type: 'string' },
                    address: { $ref: '#/$defs/address' },
                    contactMethod: { type: 'string', enum: ['phone', 'email'] },
                    phone: { type: 'string' },
                    email: { type: 'string' }
                },
                allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
                if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
                then: { required: ['phone'] },
                else: { required: ['email'] },
                additionalProperties: false
            })
        },
        args => textResult(JSON.stringify(args))
    );
    server.registerTool(
        'test_custom_header',
        {
            description: 'Mirrors its argument in the header Mcp-Param-Region',
            inputSchema: schema({ region: { type: 'string', 'x-mcp-header': 'Region' } })
        },
        ({ region }) => textResult(`Region: ${region}`)
    );
}

function addStatelessTools(server, changes) {
    server.registerTool('test_missing_capability', { description: 'Works only with a client that can sample' }, ctx =>
        inputResponse(ctx.mcpReq.inputResponses, 'answer').kind === 'sampling'
            ? textResult('The client sampled')
            : inputRequired({ inputRequests: { answer: ASK_CAPITAL } })
    );
    server.registerTool('test_streaming_elicitation', { description: 'Asks the user in the middle of a call' }, ctx =>
        elicitOnce(ctx, ELICIT_NAME)
    );
    server.registerTool('test_logging_tool', { description: 'Logs once, if the client asked for logs' }, async ctx => {
        await ctx.mcpReq.log('info', 'A message for those who asked');
        return textResult('Logged');
    });
    server.registerTool('test_trigger_tool_change', { description: 'Says that the list of tools changed' }, async () => {
        await changes.tools(server);
        return textResult('Tool list change announced');
    });
    server.registerTool('test_trigger_prompt_change', { description: 'Says that the list of prompts changed' }, async () => {
        await changes.prompts(server);
        return textResult('Prompt list change announced');
    });
}

function addInputRequiredTools(server, state) {
    server.registerTool('test_input_required_result_elicitation', { description: 'Asks for a name' }, ctx => {
        const content = acceptedContent(ctx.mcpReq.inputResponses, 'user_name');
        return content === undefined
            ? inputRequired({ inputRequests: { user_name: ELICIT_NAME } })
            : textResult(`Hello, ${content.name}!`);
    });
    server.registerTool('test_input_required_result_sampling', { description: 'Asks for a completion' }, ctx => {
        const answer = inputResponse(ctx.mcpReq.inputResponses, 'capital_question');
        return answer.kind === 'sampling'
            ? textResult(JSON.stringify(answer.result.content))
            : inputRequired({ inputRequests: { capital_question: ASK_CAPITAL } });
    });
    server.registerTool('test_input_required_result_list_roots', { description: 'Asks for the roots' }, ctx => {
        const answer = inputResponse(ctx.mcpReq.inputResponses, 'client_roots');
        return answer.kind === 'roots'
            ? textResult(answer.roots.map(root => root.uri).join(', '))
            : inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
    });
    for (const name of ['test_input_required_result_request_state', 'test_input_required_result_tampered_state']) {
        server.registerTool(name, { description: 'Gives the client a signed state to bring back' }, ctx =>
            confirmWithState(ctx, state)
        );
    }
    server.registerTool('test_input_required_result_multiple_inputs', { description: 'Asks for three things' }, ctx =>
        askForThree(ctx, state)
    );
    server.registerTool('test_input_required_result_multi_round', { description: 'Asks twice' }, ctx => askTwice(ctx, state));
    server.registerTool('test_input_required_result_capabilities', { description: 'Asks only what the client can do' }, ctx =>
        inputRequired({ inputRequests: requestsWithin(ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {}) })
    );
}

async function confirmWithState(ctx, state) {
    // A state that was tampered with never gets here: the SDK answers for it, by the verify hook.
    if (ctx.mcpReq.requestState()?.asked === 'confirm' && acceptedContent(ctx.mcpReq.inputResponses, 'confirm')) {
        return textResult('state-ok');
    }
    return inputRequired({
        inputRequests: { confirm: elicitation('Please confirm', { ok: { type: 'boolean' } }) },
        requestState: await state.mint({ asked: 'confirm' })
    });
}

async function askForThree(ctx, state) {
    const responses = ctx.mcpReq.inputResponses;
    const name = acceptedContent(responses, 'user_name');
    const greeting = inputResponse(responses, 'greeting');
    const roots = inputResponse(responses, 'client_roots');
    if (name && greeting.kind === 'sampling' && roots.kind === 'roots') {
        return textResult(`${name.name}, ${JSON.stringify(greeting.result.content)}, ${roots.roots.length} roots`);
    }
    return inputRequired({
        inputRequests: {
            user_name: ELICIT_NAME,
            greeting: sampling('Generate a greeting', 50),
            client_roots: inputRequired.listRoots()
        },
        requestState: await state.mint({ asked: 'three' })
    });
}

async function askTwice(ctx, state) {
    const known = ctx.mcpReq.requestState();
    const color = acceptedContent(ctx.mcpReq.inputResponses, 'step2');
    if (known?.name !== undefined && color) {
        return textResult(`${known.name} likes ${color.color}`);
    }
    const name = acceptedContent(ctx.mcpReq.inputResponses, 'step1');
    if (name) {
        return inputRequired({
            inputRequests: { step2: elicitation('Step 2: What is your favorite color?', { color: { type: 'string' } }) },
            requestState: await state.mint({ name: name.name })
        });
    }
    return inputRequired({
        inputRequests: { step1: elicitation('Step 1: What is your name?', { name: { type: 'string' } }) },
        requestState: await state.mint({ asked: 'step1' })
    });
}

function requestsWithin(capabilities) {
    return {
        ...(capabilities.elicitation && { user_name: ELICIT_NAME }),
        ...(capabilities.sampling && { capital_question: ASK_CAPITAL }),
        ...(capabilities.roots && { client_roots: inputRequired.listRoots() })
    };
}

function addResources(server) {
    server.registerResource(
        'static-text',
        'test://static-text',
        { description: 'A text that never changes', mimeType: 'text/plain' },
        uri => ({
            contents: [
                { uri: uri.href, mimeType: 'text/plain', text: 'This is the content of the static text resource.' }
            ]
        })
    );
    server.registerResource(
        'static-binary',
        'test://static-binary',
        { description: 'An image that never changes', mimeType: IMAGE.mimeType },
        uri => ({ contents: [{ uri: uri.href, mimeType: IMAGE.mimeType, blob: IMAGE.data }] })
    );
    server.registerResource(
        'watched-resource',
        'test://watched-resource',
        { description: 'A text to subscribe to', mimeType: 'text/plain' },
        uri => ({ contents: [{ uri: uri.href, mimeType: 'text/plain', text: 'Nothing happened yet.' }] })
    );
    server.registerResource(
        'template',
        new ResourceTemplate('test://template/{id}/data', { list: undefined }),
        { description: 'Data by id', mimeType: 'application/json' },
        (uri, { id }) => ({
            contents: [
                {
                    uri: uri.href,
                    mimeType: 'application/json',
                    text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` })
                }
            ]
        })
    );
    const watched = new Set();
    server.server.setRequestHandler('resources/subscribe', request => {
        watched.add(request.params.uri);
        return {};
    });
    server.server.setRequestHandler('resources/unsubscribe', request => {
        watched.delete(request.params.uri);
        return {};
    });
}

function addPrompts(server) {
    server.registerPrompt('test_simple_prompt', { description: 'A prompt with no arguments' }, () =>
        userMessages(text('This is a simple prompt for testing.'))
    );
    server.registerPrompt(
        'test_prompt_with_arguments',
        {
            description: 'A prompt with two arguments',
            argsSchema: schema({
                arg1: { type: 'string', description: 'First test argument' },
                arg2: { type: 'string', description: 'Second test argument' }
            })
        },
        ({ arg1, arg2 }) => userMessages(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))
    );
    server.registerPrompt(
        'test_prompt_with_embedded_resource',
        {
            description: 'A prompt that embeds a resource',
            argsSchema: schema({ resourceUri: { type: 'string', description: 'URI of the resource to embed' } })
        },
        ({ resourceUri }) =>
            userMessages(
                {
                    type: 'resource',
                    resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' }
                },
                text('Please process the embedded resource above.')
            )
    );
    server.registerPrompt('test_prompt_with_image', { description: 'A prompt that shows an image' }, () =>
        userMessages(IMAGE, text('Please analyze the image above.'))
    );
    server.registerPrompt('test_input_required_result_prompt', { description: 'A prompt that asks for its context' }, ctx => {
        const content = acceptedContent(ctx.mcpReq.inputResponses, 'user_context');
        if (content === undefined) {
            const request = elicitation('What context should the prompt use?', { context: { type: 'string' } });
            return inputRequired({ inputRequests: { user_context: request } });
        }
        return userMessages(text(`Use this context: ${content.context}`));
    });
}

function userMessages(...contents) {
    return { messages: contents.map(content => ({ role: 'user', content })) };
}

function addCompletion(server) {
    const words = ['paris', 'park', 'party', 'test'];
    server.server.setRequestHandler('completion/complete', request => {
        const values = words.filter(word => word.startsWith(request.params.argument.value));
        return { completion: { values, total: values.length, hasMore: false } };
    });
}
