/** What an NBD server tells of itself and its exports, with the names of nbdinfo. */

import { formatNbdUri } from '../../../nbd/address/index.js';
import { type ExportInformation, NbdClient, parseNbdUri } from '../../../nbd/index.js';
import { printable } from '../../shell/index.js';
import { formatBytes } from '../../text/index.js';

/** One export, with the names of nbdinfo. */
interface ListedInfo {
  readonly 'export-name': string;
  readonly description?: string;
  readonly uri: string;
  readonly contexts: readonly string[];
  readonly [ability: `${'is' | 'can'}_${string}`]: boolean;
  readonly block_size_minimum?: number;
  readonly block_size_preferred?: number;
  readonly block_size_maximum?: number;
  readonly 'export-size': number;
}

export interface ServerInfo {
  readonly protocol: 'newstyle-fixed';
  readonly TLS: boolean;
  /** Absent where the server has no export that could tell. */
  readonly structured?: boolean;
  /** Lengths have 64 bits ("extended headers"). */
  readonly extended?: boolean;
  readonly exports: readonly ListedInfo[];
}

/**
 * Asks a server for all of its exports, and what it tells of each.
 *
 * @throws TypeError where this is no NBD URI; what the server's refusal throws.
 */
export async function askServer(uri: string, signal: AbortSignal): Promise<ServerInfo> {
  const { server, tls } = parseNbdUri(uri);
  const options = { signal, ...(tls !== undefined && { tls }) };
  const listed = await NbdClient.list(server, options);
  const exports: ListedInfo[] = [];
  let last: ExportInformation | undefined;
  for (const { name, description } of listed) {
    last = await NbdClient.info(server, { ...options, export: name });
    const words = description || last.description;
    exports.push(infoOf(last, name, words, formatNbdUri(server, name, tls)));
  }
  return {
    protocol: 'newstyle-fixed',
    TLS: tls !== undefined,
    ...(last !== undefined && { structured: last.structured, extended: last.extended }),
    exports,
  };
}

function infoOf(
  info: ExportInformation,
  name: string,
  description: string | undefined,
  uri: string,
): ListedInfo {
  const { blockSizes } = info;
  return {
    'export-name': name,
    ...(description && { description }),
    uri,
    contexts: info.contexts,
    is_rotational: info.rotational,
    is_read_only: info.readOnly,
    can_cache: info.canCache,
    can_df: info.canDontFragment,
    can_fast_zero: info.canFastZero,
    can_flush: info.canFlush,
    can_fua: info.canFua,
    can_multi_conn: info.canMultiConn,
    can_trim: info.canTrim,
    can_zero: info.canWriteZeroes,
    ...(blockSizes && {
      block_size_minimum: blockSizes.minimum,
      block_size_preferred: blockSizes.preferred,
      block_size_maximum: blockSizes.maximum,
    }),
    'export-size': info.size,
  };
}

/** The same for people. */
export function describeServer({ TLS, structured, extended, exports }: ServerInfo): string {
  const replies = extended
    ? 'extended headers'
    : structured
      ? 'structured replies'
      : 'simple replies';
  const how = structured === undefined ? '' : `, ${replies}`;
  const lines = [`protocol  newstyle-fixed, ${TLS ? 'TLS' : 'no TLS'}${how}`];
  if (exports.length === 0) lines.push('It has no exports.');
  for (const one of exports) lines.push('', ...linesOf(one));
  return `${lines.join('\n')}\n`;
}

function linesOf(info: ListedInfo): string[] {
  const { description, uri, contexts, block_size_minimum: minimum } = info;
  const { block_size_preferred: preferred = 0, block_size_maximum: maximum = 0 } = info;
  const abilities = Object.entries(info).filter(([key]) => /^(is|can)_/.test(key));
  const words = abilities.filter(([, value]) => value).map(([key]) => key.replace(/_/g, ' '));
  const sizes = [minimum ?? 0, preferred, maximum].map(formatBytes);
  const rows: [string, string | undefined][] = [
    ['export', info['export-name'] || 'the default one, whose name is empty'],
    ['about', description],
    ['uri', uri],
    ['size', `${formatBytes(info['export-size'])} (${info['export-size']} bytes)`],
    ['contexts', contexts.join(', ') || 'none'],
    ['it', words.join(', ') || 'can do nothing but read'],
    [
      'requests',
      minimum === undefined
        ? undefined
        : `at least ${sizes[0]}, best ${sizes[1]}, at most ${sizes[2]}`,
    ],
  ];
  return rows.flatMap(([label, text]) =>
    text === undefined ? [] : [`${label.padEnd(9)} ${printable(text)}`],
  );
}
