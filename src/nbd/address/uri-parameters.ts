import { LacunaError } from '../../errors/index.js';
import type { NbdTls, NbdTlsX509 } from './tls.js';

/** What stands behind the question mark of an NBD URI. */
export interface UriParameters {
  readonly socket?: string;
  readonly tls?: NbdTls;
}

interface Context {
  /** The name before the host. */
  readonly user?: string;
  /** The scheme asks for TLS. */
  readonly secure: boolean;
  readonly localFiles?: boolean;
}

const LOCAL_FILES = ['tls-certificates', 'tls-psk-file'];
const KNOWN = ['socket', 'tls-type', 'tls-hostname', 'tls-verify-peer', ...LOCAL_FILES];

/** @throws TypeError for what is not known, given twice, or not allowed here. */
export function readParameters(uri: string, query: string, context: Context): UriParameters {
  const found = new Map<string, string>();
  for (const parameter of query.split(/[&;]/)) {
    if (parameter === '') continue;
    const [key] = parameter.split('=', 1);
    if (!KNOWN.includes(key)) throw invalidUri(uri, `the parameter "${key}" is not known`);
    if (found.has(key)) throw invalidUri(uri, `"${key}" is given twice`);
    checkAllowed(uri, key, context);
    found.set(key, decodeUriText(uri, parameter.slice(key.length + 1)));
  }
  if (!context.secure && context.user !== undefined) {
    throw invalidUri(uri, 'a user name is for TLS: write nbds://');
  }
  const tls = context.secure ? readTls(uri, found, context.user || undefined) : undefined;
  return { socket: found.get('socket'), tls };
}

/** A parameter that would be without effect is a mistake that looks like safety. */
function checkAllowed(uri: string, key: string, { secure, localFiles }: Context): void {
  if (key.startsWith('tls-') && !secure)
    throw invalidUri(uri, `"${key}" belongs to nbds URIs only`);
  if (!LOCAL_FILES.includes(key) || localFiles) return;
  throw invalidUri(uri, `"${key}" names a file of this machine, which is not allowed here`);
}

function readTls(uri: string, found: ReadonlyMap<string, string>, username?: string): NbdTls {
  const pskFile = found.get('tls-psk-file');
  const hasKey = pskFile !== undefined || username !== undefined;
  const type = found.get('tls-type') ?? (hasKey ? 'psk' : 'x509');
  if (type === 'psk') {
    refuse(uri, found, ['tls-certificates', 'tls-hostname', 'tls-verify-peer'], type);
    return defined({ type, username, 'psk-file': pskFile });
  }
  if (type === 'anon') {
    const message = `${uri}: anonymous TLS is not supported; anybody could be in between`;
    throw new LacunaError('ERR_NBD_UNSUPPORTED', message, { device: uri });
  }
  if (type !== 'x509') throw invalidUri(uri, `"tls-type" is x509 or psk, not "${type}"`);
  refuse(uri, found, ['tls-psk-file'], type);
  if (username !== undefined) throw invalidUri(uri, 'a user name is for tls-type=psk');
  return defined<NbdTlsX509>({
    type,
    certificates: found.get('tls-certificates'),
    hostname: found.get('tls-hostname'),
    'verify-peer': flag(uri, found.get('tls-verify-peer')),
  });
}

function refuse(
  uri: string,
  found: ReadonlyMap<string, string>,
  keys: readonly string[],
  type: string,
): void {
  for (const key of keys) {
    if (found.has(key)) throw invalidUri(uri, `"${key}" has no meaning with tls-type=${type}`);
  }
}

function flag(uri: string, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (/^(?:1|true|t|yes|y|on)$/i.test(text)) return true;
  if (/^(?:0|false|f|no|n|off)$/i.test(text)) return false;
  throw invalidUri(uri, `"tls-verify-peer" is true or false, not "${text}"`);
}

/** Without the keys that are undefined, so that it is the same as its JSON. */
function defined<T extends object>(value: T): T {
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(entries) as T;
}

/** @throws TypeError unless the text is well percent-encoded. */
export function decodeUriText(uri: string, text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch (cause) {
    throw invalidUri(uri, `"${text}" is not well percent-encoded`, cause);
  }
  // A NUL would cut the name short in the server, or name an abstract socket.
  if (decoded.includes('\0')) throw invalidUri(uri, 'it contains a NUL character');
  return decoded;
}

export function invalidUri(uri: string, why: string, cause?: unknown): TypeError {
  return new TypeError(
    `not an NBD URI: ${uri}: ${why}`,
    cause === undefined ? undefined : { cause },
  );
}
