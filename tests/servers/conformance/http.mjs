// The fixture served directly over streamable HTTP, on loopback: sessions, event ids and polling for the revisions with a
// handshake, single requests for 2026-07-28, both on /mcp. This is the side that a proxy has to supply for a stdio server.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

import { toNodeHandler } from '@modelcontextprotocol/node';
import {
    createMcpHandler,
    hostHeaderValidationResponse,
    isLegacyRequest,
    localhostAllowedHostnames,
    localhostAllowedOrigins,
    originValidationResponse,
    WebStandardStreamableHTTPServerTransport
} from '@modelcontextprotocol/server';

const RETRY_MS = 500;

/** Keeps what a session's streams carried, so that a client can come back with Last-Event-ID. Lives as long as the session. */
class SessionEvents {
    #events = [];

    async storeEvent(streamId, message) {
        this.#events.push({ streamId, message });
        return String(this.#events.length);
    }

    async getStreamIdForEventId(eventId) {
        return this.#events[Number(eventId) - 1]?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const streamId = await this.getStreamIdForEventId(lastEventId);
        for (let position = Number(lastEventId); position < this.#events.length; position += 1) {
            const { streamId: owner, message } = this.#events[position];
            // A priming event is stored as an empty object: it marks a place and says nothing.
            if (owner === streamId && Object.keys(message).length > 0) {
                await send(String(position + 1), message);
            }
        }
        return streamId;
    }
}

function errorResponse(status, code, message) {
    return Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status });
}

/** The sessions that began with a handshake. `create` makes a server instance for one. */
class Sessions {
    #transports = new Map();
    #create;

    constructor(create) {
        this.#create = create;
    }

    async fetch(request) {
        const id = request.headers.get('mcp-session-id');
        if (id === null) {
            return (await this.#open()).handleRequest(request);
        }
        const transport = this.#transports.get(id);
        return transport?.handleRequest(request) ?? errorResponse(404, -32_001, 'Session not found');
    }

    async #open() {
        const transport = new WebStandardStreamableHTTPServerTransport({
            sessionIdGenerator: randomUUID,
            onsessioninitialized: id => void this.#transports.set(id, transport),
            onsessionclosed: id => void this.#transports.delete(id),
            eventStore: new SessionEvents(),
            retryInterval: RETRY_MS
        });
        await this.#create().connect(transport);
        return transport;
    }
}

/** Serves on 127.0.0.1. `create(changes)` makes a server instance; resolves with the port once it listens. */
export function serveHttp(create, port) {
    const modern = createMcpHandler(
        // An instance lives for one request here, so a change is told to the handler, which holds the listening streams.
        () => create({ tools: () => modern.notify.toolsChanged(), prompts: () => modern.notify.promptsChanged() }),
        { legacy: 'reject' }
    );
    const sessions = new Sessions(() =>
        create({ tools: server => server.sendToolListChanged(), prompts: server => server.sendPromptListChanged() })
    );
    async function fetch(request) {
        const refused =
            hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
            originValidationResponse(request, localhostAllowedOrigins());
        if (refused !== undefined) {
            return refused;
        }
        if (new URL(request.url).pathname !== '/mcp') {
            return errorResponse(404, -32_000, 'Not found');
        }
        return (await isLegacyRequest(request)) ? sessions.fetch(request) : modern.fetch(request);
    }
    const listener = createServer(toNodeHandler({ fetch }));
    return new Promise((resolve, reject) => {
        listener.once('error', reject);
        listener.listen(port, '127.0.0.1', () => resolve(listener.address().port));
    });
}
