import type { NbdListenAddress, NbdListenDescriptor } from '../../nbd/index.js';
import { portOf, type SocketAddress } from '../blockdev/index.js';
import { type Control, nodeNamed, refusal } from '../core/index.js';
import {
  about,
  type Command,
  command,
  count,
  flag,
  list,
  optional,
  struct,
  type Type,
  text,
  union,
  type ValuesOf,
  word,
} from '../schema/index.js';
import { bitmapList } from './types.js';

/** How `nbd-server-start` says an address: QEMU has it with the members in `data`. */
export type LegacyAddress =
  | { readonly type: 'unix'; readonly data: { readonly path: string } }
  | { readonly type: 'inet'; readonly data: { readonly host: string; readonly port: string } };

const legacyAddress: Type<LegacyAddress> = union('SocketAddressLegacy', {
  base: { type: word('SocketAddressType', 'inet', 'unix') },
  tag: 'type',
  branches: () => ({
    unix: { data: struct('UnixSocketAddressWrapper', { path: text }) },
    inet: { data: struct('InetSocketAddressWrapper', { host: text, port: text }) },
  }),
});

const removeMode = word('BlockExportRemoveMode', 'safe', 'hard');

const REMOVAL = about(
  optional(removeMode),
  '`safe`: not while a client uses it; `hard`: clients are hung up on. Default safe',
);

/** What `block-export-add` and `--export` say. */
export interface ExportArguments {
  readonly type: 'nbd';
  readonly id: string;
  readonly 'node-name': string;
  readonly writable?: boolean;
  readonly name?: string;
  readonly description?: string;
  readonly bitmaps?: readonly (string | { readonly node: string; readonly name: string })[];
}

export const exportOptions: Type<ExportArguments> = union('BlockExportOptions', {
  base: {
    type: word('BlockExportType', 'nbd'),
    id: about(text, 'what it is called in QMP'),
    'node-name': about(text, 'the node that is served'),
    writable: about(optional(flag), 'default false'),
    writethrough: about(optional(flag), 'only false'),
  },
  tag: 'type',
  branches: () => ({
    nbd: {
      name: about(optional(text), 'what clients ask for; default: the name of the node'),
      description: about(optional(text), 'for people who list the exports'),
      bitmaps: about(optional(bitmapList), 'served as `qemu:dirty-bitmap:NAME`'),
    },
  }),
});

/** `nbd-server-start`, and `--nbd-server` with the other form of the address. */
export const NBD_SERVER = {
  'tls-creds': about(
    optional(text),
    'an object with the endpoint server: clients have to use TLS then',
  ),
  'max-connections': about(optional(count), 'clients at one time; 0 for no limit'),
};

/** Exports over NBD. */
export const exports_: readonly Command<Control>[] = [
  command({
    name: 'nbd-server-start',
    about: 'Lets an NBD server listen, which serves all exports.',
    args: { addr: legacyAddress, ...NBD_SERVER },
    run: (control: Control, { addr, ...others }) =>
      startServer(control, { type: addr.type, ...addr.data } as never, others),
  }),
  command({
    name: 'nbd-server-stop',
    about: 'Removes all exports, and ends the server.',
    run: ({ exports }: Control) => exports.stop(),
  }),
  command({
    name: 'block-export-add',
    about: 'Serves a node.',
    boxed: exportOptions,
    run: (control: Control, options) => addExport(control, options),
  }),
  command({
    name: 'block-export-del',
    about: 'Serves a node no more. BLOCK_EXPORT_DELETED tells when nothing uses it.',
    args: { id: text, mode: REMOVAL },
    run: ({ exports }: Control, { id, mode = 'safe' }) => {
      remove(exports.beginRemoval(id, mode === 'safe'));
    },
  }),
  command({
    name: 'query-block-exports',
    about: 'The exports.',
    returns: list(
      struct('BlockExportInfo', {
        id: text,
        type: word('BlockExportType', 'nbd'),
        'node-name': text,
        'shutting-down': flag,
      }),
    ),
    run: ({ exports }: Control) => exports.list().reverse(),
  }),
  command({
    name: 'nbd-server-add',
    about:
      'The older form of block-export-add: the export has the same name in QMP and for clients.',
    args: {
      device: about(text, 'the node'),
      name: about(optional(text), 'default: the name of the node'),
      description: optional(text),
      writable: optional(flag),
      bitmap: optional(text),
    },
    run: (control: Control, { device, name = device, bitmap, ...others }) => {
      nodeNamed(control.graph, device);
      return addExport(control, {
        ...others,
        type: 'nbd',
        id: name,
        'node-name': device,
        name,
        ...(bitmap !== undefined && { bitmaps: [bitmap] }),
      });
    },
  }),
  command({
    name: 'nbd-server-remove',
    about: 'The older form of block-export-del.',
    args: { name: text, mode: REMOVAL },
    run: ({ exports }: Control, { name, mode = 'safe' }) => {
      remove(exports.beginRemoval(exports.idOf(name), mode === 'safe'));
    },
  }),
];

/** An event tells of its end; what closing a device throws then, nobody could do anything about. */
function remove(removal: Promise<void>): void {
  removal.catch(() => {});
}

/** @throws QmpCommandError; what listening throws. */
export async function startServer(
  control: Control,
  address: SocketAddress | NbdListenDescriptor,
  { 'tls-creds': credentials, 'max-connections': most }: ValuesOf<typeof NBD_SERVER>,
  files = control.files,
): Promise<void> {
  const where = listenAddress(address, files);
  const tls =
    credentials === undefined ? undefined : control.objects.credentials(credentials, 'server');
  await control.exports.start(where, {
    ...(most !== undefined && { maxConnections: most === 0 ? 2 ** 31 : most }),
    ...(tls && { tls }),
  });
}

/** @throws QmpCommandError */
function listenAddress(
  address: SocketAddress | NbdListenDescriptor,
  files: Control['files'],
): NbdListenAddress {
  if (address.type === 'fd') return address;
  if (address.type === 'unix') return { type: 'unix', path: files.check(address.path) };
  return { type: 'inet', host: address.host, port: portOf(address) };
}

/** @throws QmpCommandError; what letting it in throws. */
export async function addExport(control: Control, options: ExportArguments): Promise<void> {
  const { id, 'node-name': node, name = node, writable = false, description, bitmaps } = options;
  if ('writethrough' in options && options.writethrough === true) {
    throw refusal('writethrough is not offered here: leave it out');
  }
  await control.exports.add({
    ...{ id, node, name, writable, description },
    bitmaps: (bitmaps ?? []).map((one) => (typeof one === 'string' ? { node, name: one } : one)),
  });
}
