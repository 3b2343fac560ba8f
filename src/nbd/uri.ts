import { LacunaError } from '../errors/index.js';

/** Where an NBD server listens, in the words of QEMU's SocketAddress. */
export type NbdServerAddress =
  | { type: 'unix'; path: string }
  | { type: 'inet'; host: string; port: number };

/** What an NBD URI says. */
export interface NbdLocation {
  readonly server: NbdServerAddress;
  /** Name of the export; empty for the server's default export. */
  readonly export: string;
}

const DEFAULT_PORT = 10809;

/**
 * Reads `nbd://host[:port]/export` and `nbd+unix:///export?socket=PATH` (the NBD URI specification).
 * Not built on the URL class, which for schemes that it does not know neither decodes hosts nor keeps
 * `//` at the start of an export's name apart.
 *
 * @throws TypeError when it is no such URI, or has a parameter that is not known.
 * @throws LacunaError ERR_NBD_UNSUPPORTED for a URI that asks for TLS.
 */
export function parseNbdUri(uri: string): NbdLocation {
  const match = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/i.exec(uri);
  if (match === null) throw invalid(uri, 'it must look like nbd://HOST[:PORT]/EXPORT');
  const [, scheme, authority, path, query] = match;
  const socket = socketParameter(uri, query ?? '');
  const exportName = decode(uri, path.replace(/^\//, ''));
  switch (scheme.toLowerCase()) {
    case 'nbd':
      if (socket !== undefined) throw invalid(uri, '"socket" belongs to nbd+unix URIs only');
      return { server: inetAddress(uri, authority), export: exportName };
    case 'nbd+unix':
      if (authority !== '') throw invalid(uri, 'an nbd+unix URI has no host: write nbd+unix:///');
      if (!socket) throw invalid(uri, 'an nbd+unix URI needs ?socket=PATH');
      return { server: { type: 'unix', path: socket }, export: exportName };
    case 'nbds':
    case 'nbds+unix':
      throw new LacunaError(
        'ERR_NBD_UNSUPPORTED',
        `${uri}: TLS is not supported yet; use nbd:// over a network that you trust`,
        { device: uri },
      );
    default:
      throw invalid(uri, `the scheme "${scheme}" is not one of nbd, nbd+unix`);
  }
}

/** The URI of an export, as messages name it; {@link parseNbdUri} reads it back. */
export function formatNbdUri(server: NbdServerAddress, exportName = ''): string {
  const name = encode(exportName);
  if (server.type === 'unix') return `nbd+unix:///${name}?socket=${encode(server.path)}`;
  const ipv6 = server.host.includes(':');
  const host = ipv6 ? `[${server.host.replaceAll('%', '%25')}]` : encode(server.host);
  const port = server.port === DEFAULT_PORT ? '' : `:${server.port}`;
  return `nbd://${host}${port}/${name}`;
}

/** Percent-encodes, but leaves slashes readable; half a surrogate pair, which cannot be sent, is replaced. */
function encode(text: string): string {
  const sendable = text.replace(/\p{Surrogate}/gu, '\ufffd');
  return encodeURIComponent(sendable).replaceAll('%2F', '/');
}

function inetAddress(uri: string, authority: string): NbdServerAddress {
  if (authority.includes('@')) {
    throw invalid(uri, 'a user name is for TLS, which is not supported yet');
  }
  const match = /^(?:\[([0-9a-f:.]+(?:%25[^\]]+)?)\]|([^:[\]]*))(?::(\d*))?$/i.exec(authority);
  if (match === null) {
    throw invalid(uri, `"${authority}" is not HOST[:PORT]; put an IPv6 address in brackets`);
  }
  const [, ipv6, name, digits] = match;
  const port = digits ? Number(digits) : DEFAULT_PORT;
  if (port < 1 || port > 65535) throw invalid(uri, `${digits} is not a port`);
  const host = decode(uri, ipv6 ?? name) || 'localhost';
  return { type: 'inet', host, port };
}

/** The value of `socket`, the only parameter there is. */
function socketParameter(uri: string, query: string): string | undefined {
  let socket: string | undefined;
  for (const parameter of query.split(/[&;]/)) {
    if (parameter === '') continue;
    const [key] = parameter.split('=', 1);
    if (key !== 'socket') throw invalid(uri, `the parameter "${key}" is not known`);
    if (socket !== undefined) throw invalid(uri, '"socket" is given twice');
    socket = decode(uri, parameter.slice(key.length + 1));
  }
  return socket;
}

function decode(uri: string, text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch (cause) {
    throw invalid(uri, `"${text}" is not well percent-encoded`, cause);
  }
  // A NUL would cut the name short in the server, or name an abstract socket.
  if (decoded.includes('\0')) throw invalid(uri, 'it contains a NUL character');
  return decoded;
}

function invalid(uri: string, why: string, cause?: unknown): TypeError {
  return new TypeError(
    `not an NBD URI: ${uri}: ${why}`,
    cause === undefined ? undefined : { cause },
  );
}
