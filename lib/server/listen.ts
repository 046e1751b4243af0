import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { getRequestListener } from '@hono/node-server';
import type { Hono } from 'hono';
import { ReflError } from '../errors.ts';

/** An app that answers at an address. */
export class Listening {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server) {
    this.port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  /** Throws ERR_OPTION where the address cannot be listened at. Port 0 takes a free one. */
  static async start(app: Hono, host: string, port: number): Promise<Listening> {
    if (!(Number.isInteger(port) && port >= 0 && port < 65536))
      throw new ReflError('ERR_OPTION', `port must be a whole number from 0 to 65535, got ${port}`);
    const server = createServer(getRequestListener(app.fetch));
    try {
      await new Promise<void>((done, fail) => server.once('error', fail).listen(port, host, done));
    } catch (cause) {
      const code = (cause as NodeJS.ErrnoException).code;
      const why = code === 'EADDRINUSE' ? 'the port is taken: --port 0 finds a free one' : (cause as Error).message;
      throw new ReflError('ERR_OPTION', `cannot listen at ${host}, port ${port}: ${why}`, { cause });
    }
    return new Listening(server);
  }

  /** Lets answers that are being made go out for a second, and ends all connections. */
  async close(): Promise<void> {
    const closed = new Promise((done) => this.#server.close(done));
    this.#server.closeIdleConnections();
    const late = setTimeout(() => this.#server.closeAllConnections(), 1000);
    await closed;
    clearTimeout(late);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
