/** Where the page and the metrics are served: on this machine alone. */
export type WatchAddress =
  | { readonly type: 'inet'; readonly host: string; readonly port: number }
  | { readonly type: 'unix'; readonly path: string };

const FORM = '127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH';

/**
 * Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` or `unix:/run/lacuna.sock`.
 *
 * @throws TypeError for another form, RangeError for an address that others could reach.
 */
export function parseWatchAddress(text: unknown): WatchAddress {
  if (typeof text !== 'string') throw new TypeError(`listen must be ${FORM}, not ${text}`);
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    if (path === '') throw new TypeError('unix: needs the path of the socket behind it');
    return { type: 'unix', path };
  }
  const found = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(found?.[3]);
  if (found === null || port > 65_535) throw new TypeError(`listen must be ${FORM}, not "${text}"`);
  return { type: 'inet', host: loopback(found[1] ?? found[2]), port };
}

function loopback(host: string): string {
  // What a name stands for, others may decide.
  if (host === 'localhost') return '127.0.0.1';
  if (host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)) return host;
  throw new RangeError(
    `${host} is not this machine alone: listen on ${FORM}; for others put a server before it that knows its users`,
  );
}

/** How a browser reaches an address; undefined for a Unix socket, which it cannot. */
export function urlOf(address: WatchAddress): string | undefined {
  if (address.type === 'unix') return undefined;
  const { host, port } = address;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}/`;
}
