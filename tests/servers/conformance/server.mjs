#!/usr/bin/env node
// The server that the official conformance suite is run against, in two ways:
//
//     node server.mjs --http PORT     itself over streamable HTTP on 127.0.0.1 (0 takes a free port); prints its URL
//     node server.mjs --stdio         as a plain stdio server, for a proxy to serve
//
// --reconnection-work MS sets how long test_reconnection takes where nobody can close its stream.

import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';

import { serveStdio } from '@modelcontextprotocol/server/stdio';

import { createFixtureServer, RECONNECTION_WORK_MS } from './fixture.mjs';
import { serveHttp } from './http.mjs';

const { values } = parseArgs({
    options: {
        http: { type: 'string' },
        stdio: { type: 'boolean', default: false },
        'reconnection-work': { type: 'string', default: String(RECONNECTION_WORK_MS) }
    }
});

// One key for the whole process: over HTTP the round that brings a state back is served by another instance.
const stateKey = randomBytes(32);

function create(changes) {
    return createFixtureServer({ changes, stateKey, reconnectionWorkMs: Number(values['reconnection-work']) });
}

if (values.http !== undefined && !values.stdio) {
    const port = await serveHttp(create, Number(values.http));
    console.log(`http://127.0.0.1:${port}/mcp`);
} else if (values.stdio && values.http === undefined) {
    serveStdio(() =>
        create({ tools: server => server.sendToolListChanged(), prompts: server => server.sendPromptListChanged() })
    );
} else {
    console.error('usage: server.mjs --http PORT | --stdio');
    process.exitCode = 2;
}
