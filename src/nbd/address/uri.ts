import { LacunaError } from '../../errors/index.js';
import { checkGiven, optionCheck } from '../../util/index.js';
import type { NbdTls } from './tls.js';
import { decodeUriText, invalidUri, readParameters } from './uri-parameters.js';

/** Where an NBD server listens, in the words of QEMU's SocketAddress. */
export type NbdServerAddress =
  | { type: 'unix'; path: string }
  | { type: 'inet'; host: string; port: number };

/** What an NBD URI says. */
export interface NbdLocation {
  /** Where the server listens. */
  readonly server: NbdServerAddress;
  /** Name of the export; empty for the server's default export. */
  readonly export: string;
  /** Of an `nbds` URI: TLS is required. */
  readonly tls?: NbdTls;
}

/** How far a URI is trusted. */
export interface NbdUriOptions {
  /**
   * Whether the URI may name files of this machine (`tls-certificates`, `tls-psk-file`). Default false: a
   * URI that came from elsewhere must not choose what is read here.
   */
  readonly localFiles?: boolean;
}

const checkUriOptions = optionCheck<NbdUriOptions>({ localFiles: 'flag' });

const DEFAULT_PORT = 10809;

/**
 * Reads `nbd://host[:port]/export` and `nbd+unix:///export?socket=PATH`, and with TLS `nbds://` and
 * `nbds+unix://` with the parameters `tls-type`, `tls-hostname` and `tls-verify-peer` (the NBD URI
 * specification) and libnbd's `tls-certificates` and `tls-psk-file`; a user's name is that of a pre-shared key.
 * Not built on the URL class, which for schemes that it does not know neither decodes hosts nor keeps
 * `//` at the start of an export's name apart.
 *
 * @throws TypeError when it is no such URI, or has a parameter that is not known or not allowed.
 * @throws LacunaError ERR_NBD_UNSUPPORTED for what Node cannot do: VM sockets and anonymous TLS.
 */
export function parseNbdUri(uri: string, options: NbdUriOptions = {}): NbdLocation {
  checkGiven('parseNbdUri', 'uri', uri, 'such as nbd://HOST/EXPORT');
  checkUriOptions('parseNbdUri', options);
  const match = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/i.exec(uri);
  if (match === null) throw invalidUri(uri, 'it must look like nbd://HOST[:PORT]/EXPORT');
  const [, scheme, whole, path, query] = match;
  const [, secure, transport] = /^nbd(s?)(?:\+(unix|vsock))?$/.exec(scheme.toLowerCase()) ?? [];
  if (secure === undefined) {
    const known = 'nbd, nbds, nbd+unix, nbds+unix';
    throw invalidUri(uri, `the scheme "${scheme}" is not one of ${known}`);
  }
  if (transport === 'vsock') {
    const message = `${uri}: Node has no VM sockets; let "socat" forward one to a Unix socket`;
    throw new LacunaError('ERR_NBD_UNSUPPORTED', message, { device: uri });
  }
  const at = whole.lastIndexOf('@');
  const user = at === -1 ? undefined : decodeUriText(uri, whole.slice(0, at));
  const { socket, tls } = readParameters(uri, query ?? '', {
    user,
    secure: secure !== '',
    ...options,
  });
  const authority = whole.slice(at + 1);
  const server =
    transport === 'unix'
      ? unixAddress(uri, authority, socket)
      : inetAddress(uri, authority, socket);
  const exportName = decodeUriText(uri, path.replace(/^\//, ''));
  return { server, export: exportName, ...(tls !== undefined && { tls }) };
}

/**
 * The URI of an export, as messages name it; {@link parseNbdUri} reads it back. Of TLS it says all but keys,
 * certificates and where their files are, which are nobody else's concern.
 */
export function formatNbdUri(server: NbdServerAddress, exportName = '', tls?: NbdTls): string {
  checkAddressKeys('formatNbdUri', server);
  const scheme = tls === undefined ? 'nbd' : 'nbds';
  const user = tls?.type === 'psk' && tls.username ? `${encode(tls.username, '%2F')}@` : '';
  const query = tls === undefined ? [] : tlsParameters(tls);
  if (server.type === 'unix') query.unshift(`socket=${encode(server.path)}`);
  const tail = `${encode(exportName)}${query.length > 0 ? `?${query.join('&')}` : ''}`;
  if (server.type === 'unix') return `${scheme}+unix://${user}/${tail}`;
  const ipv6 = server.host.includes(':');
  const host = ipv6 ? `[${server.host.replaceAll('%', '%25')}]` : encode(server.host, '%2F');
  const port = server.port === DEFAULT_PORT ? '' : `:${server.port}`;
  return `${scheme}://${user}${host}${port}/${tail}`;
}

function tlsParameters(tls: NbdTls): string[] {
  if (tls.type === 'psk') return ['tls-type=psk'];
  const parameters: string[] = [];
  if (tls.hostname !== undefined) parameters.push(`tls-hostname=${encode(tls.hostname)}`);
  if (tls['verify-peer'] === false) parameters.push('tls-verify-peer=false');
  return parameters;
}

/** Percent-encodes, but leaves slashes readable; half a surrogate pair, which cannot be sent, is replaced. */
function encode(text: string, slash = '/'): string {
  const sendable = text.replace(/\p{Surrogate}/gu, '\ufffd');
  return encodeURIComponent(sendable).replaceAll('%2F', slash);
}

function unixAddress(uri: string, host: string, socket: string | undefined): NbdServerAddress {
  if (host !== '') throw invalidUri(uri, 'a Unix socket has no host: write nbd+unix:///');
  if (!socket) throw invalidUri(uri, 'an nbd+unix URI needs ?socket=PATH');
  return { type: 'unix', path: socket };
}

function inetAddress(uri: string, authority: string, socket: string | undefined): NbdServerAddress {
  if (socket !== undefined) throw invalidUri(uri, '"socket" belongs to nbd+unix URIs only');
  const match = /^(?:\[([0-9a-f:.]+(?:%25[^\]]+)?)\]|([^:[\]]*))(?::(\d*))?$/i.exec(authority);
  if (match === null) {
    throw invalidUri(uri, `"${authority}" is not HOST[:PORT]; put an IPv6 address in brackets`);
  }
  const [, ipv6, name, digits] = match;
  const port = digits ? Number(digits) : DEFAULT_PORT;
  if (port < 1 || port > 65535) throw invalidUri(uri, `${digits} is not a port`);
  const host = decodeUriText(uri, ipv6 ?? name) || 'localhost';
  return { type: 'inet', host, port };
}

export const AN_ADDRESS = "{ type: 'unix', path } or { type: 'inet', host, port }";

type Unix = Extract<NbdServerAddress, { type: 'unix' }>;
type Inet = Extract<NbdServerAddress, { type: 'inet' }>;

const TYPE = { needed: "'unix' or 'inet'" } as const;
const checkUnix = optionCheck<Unix>({ type: TYPE, path: { needed: 'of a Unix socket' } });
const checkInet = optionCheck<Inet>({
  type: TYPE,
  host: { needed: 'a name or an address' },
  port: { needed: 'a number' },
});

/** Throws unless an address has the keys of its type, and no others. */
export function checkAddressKeys(owner: string, address: NbdServerAddress): void {
  const { type } = (address ?? {}) as { type?: unknown };
  if (type === 'unix') checkUnix(owner, address as Unix);
  else if (type === 'inet') checkInet(owner, address as Inet);
  else throw new TypeError(`${owner} needs an address: ${AN_ADDRESS}`);
}
