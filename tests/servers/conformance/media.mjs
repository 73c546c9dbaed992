// The smallest image and the smallest sound that decoders accept, built here rather than pasted as base64.

import { crc32, deflateSync } from 'node:zlib';

function pngChunk(type, data) {
    const body = Buffer.concat([Buffer.from(type, 'ascii'), data]);
    const frame = Buffer.alloc(body.length + 8);
    frame.writeUInt32BE(data.length, 0);
    body.copy(frame, 4);
    frame.writeUInt32BE(crc32(body), body.length + 4);
    return frame;
}

function redPixel() {
    const header = Buffer.alloc(13);
    header.writeUInt32BE(1, 0); // width
    header.writeUInt32BE(1, 4); // height
    header.set([8, 2], 8); // 8 bits a channel, RGB
    const row = Buffer.from([0, 255, 0, 0]); // no filter, then one red pixel
    return Buffer.concat([
        Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
        pngChunk('IHDR', header),
        pngChunk('IDAT', deflateSync(row)),
        pngChunk('IEND', Buffer.alloc(0))
    ]);
}

function silence() {
    const rate = 8000;
    const samples = Buffer.alloc(8, 128); // 8-bit PCM is unsigned: 128 is silence
    const header = Buffer.alloc(44);
    header.write('RIFF', 0, 'ascii');
    header.writeUInt32LE(36 + samples.length, 4);
    header.write('WAVEfmt ', 8, 'ascii');
    header.writeUInt32LE(16, 16); // length of the format chunk
    header.writeUInt16LE(1, 20); // PCM
    header.writeUInt16LE(1, 22); // mono
    header.writeUInt32LE(rate, 24);
    header.writeUInt32LE(rate, 28); // bytes a second
    header.writeUInt16LE(1, 32); // bytes a sample
    header.writeUInt16LE(8, 34); // bits a sample
    header.write('data', 36, 'ascii');
    header.writeUInt32LE(samples.length, 40);
    return Buffer.concat([header, samples]);
}

export const IMAGE = { type: 'image', data: redPixel().toString('base64'), mimeType: 'image/png' };
export const AUDIO = { type: 'audio', data: silence().toString('base64'), mimeType: 'audio/wav' };
