import { basename, dirname, resolve } from 'node:path';
import {
  createQcow2,
  createRawFile,
  type DeviceDescription,
  type FileDescription,
  type ImageDescription,
  kindOf,
  takesKey,
} from '../../block/index.js';
import { isSamePlace, makeFile } from '../../files/index.js';
import { optionCheck } from '../../util/index.js';
import {
  type Changer,
  conflict,
  fileBelow,
  formatBelow,
  type NodeDescription,
} from '../core/index.js';
import { GraphJob } from '../jobs/index.js';

/** A new image. */
export interface CreateImageOptions {
  /** What it is going to be opened as: a `file`, or a `qcow2` image in one. Where the file is there, nothing is made. */
  readonly image: NodeDescription;
  /** Bytes of the disk. Default: as large as `over`. */
  readonly size?: number;
  /** The name of a node: the image shows what that shows. Only for `qcow2`, over a node whose content is in a file. */
  readonly over?: string;
  /** Bytes of a cluster of a `qcow2` image. Default 64 KiB. */
  readonly clusterSize?: number;
  /** Whether it leaves `Graph.jobs` by itself when it has ended; if not, it does so by `dismiss()`. Default true. */
  readonly autoDismiss?: boolean;
  /** Fires to end the work; it fails with ERR_ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

/** Result of a create job. */
export interface CreateImageReport {
  /** The file that was made. */
  readonly path: string;
  /** Bytes of the disk. */
  readonly size: number;
}

const check = optionCheck<CreateImageOptions>({
  image: { needed: 'the description that the new image is going to be opened by' },
  size: 'any',
  over: 'any',
  clusterSize: 'any',
  autoDismiss: 'flag',
  signal: 'signal',
});

interface Wanted {
  readonly path: string;
  /** Whether it is in a format; otherwise the file is the disk. */
  readonly isImage: boolean;
}

/** Makes an image, durably; see `Graph.create`. */
export function create(changer: Changer, options: CreateImageOptions): GraphJob<CreateImageReport> {
  check('Graph.create', options);
  const wanted = wantedBy(options);
  let doneBytes = 0;
  return new GraphJob<CreateImageReport>({
    what: 'a create',
    signal: options.signal,
    autoDismiss: options.autoDismiss,
    work: async ({ ending }) => {
      const size = await changer.run(async () =>
        make(changer, wanted, { ...options, signal: ending }),
      );
      doneBytes = 1;
      return { path: wanted.path, size };
    },
    counted: () => ({ totalBytes: 1, doneBytes }),
  });
}

function wantedBy({ image, size, over, clusterSize }: CreateImageOptions): Wanted {
  const own = Object(image) as DeviceDescription;
  const isImage = kindOf(own).around !== undefined;
  const file: DeviceDescription = isImage ? Object((own as ImageDescription).file) : own;
  if (!isNamedFile(file)) {
    throw new TypeError(
      `image must be { driver: 'file', filename }, or { driver: 'qcow2', file: { driver: 'file', filename } }, not ${JSON.stringify(image)}`,
    );
  }
  if (over === undefined && size === undefined)
    throw new TypeError('say a size, or over which node');
  if (!isImage && over !== undefined) throw new TypeError('a raw file lies over nothing');
  if (!isImage && clusterSize !== undefined) throw new TypeError('a raw file has no clusters');
  return { path: file.filename, isImage };
}

function isNamedFile(description: DeviceDescription): description is FileDescription {
  return (
    'driver' in description &&
    takesKey(description, 'filename') &&
    typeof description.filename === 'string'
  );
}

async function make(
  { state }: Changer,
  { path, isImage }: Wanted,
  { size: given, over, clusterSize, signal }: CreateImageOptions,
): Promise<number> {
  const below = over === undefined ? undefined : state.node(over);
  const size = given ?? below!.size;
  const image = resolve(path);
  const backing =
    below &&
    backingOf(image, fileBelow(state.view, below), formatBelow(state.view, below), below.name);
  await makeFile(image, { exclusive: true, also: [] }, async (inode) => {
    const how = { ...(inode !== undefined && { inode }), ...(signal && { signal }) };
    if (!isImage) await createRawFile(image, size, how);
    else
      await createQcow2(image, {
        size,
        ...(clusterSize !== undefined && { clusterSize }),
        ...(backing && { backing }),
        ...how,
      });
  });
  return size;
}

/** Beside the image by its name alone, so that both may move together. */
function backingOf(
  image: string,
  path: string | undefined,
  format: string | undefined,
  node: string,
): { filename: string; format: string } {
  if (path === undefined || format === undefined) {
    throw conflict(
      `the content of node '${node}' is in no file that an image can name: leave out over`,
    );
  }
  const whole = resolve(path);
  const isBeside = isSamePlace(dirname(whole), dirname(image));
  return { filename: isBeside ? basename(whole) : whole, format };
}
