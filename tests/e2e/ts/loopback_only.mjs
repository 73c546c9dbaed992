// Preloaded into server-everything, which listens on every address and does not say on which port:
// keeps it on loopback, and prints the URL on stderr.

import { Server } from 'node:net';

const HOST = '127.0.0.1';
const { listen } = Server.prototype;

Server.prototype.listen = function listenOnLoopback(port, ...rest) {
  this.once('listening', () => console.error(`listening on http://${HOST}:${this.address().port}`));
  return listen.call(this, { port: Number(port), host: HOST }, ...rest);
};
