import { Job } from '../../job/index.js';
import {
  type BlockdevOptions,
  blockdevOptions,
  DRIVERS,
  type FileWish,
} from '../blockdev/index.js';
import { type Control, refusal } from '../core/index.js';
import {
  about,
  alternate,
  type Command,
  command,
  count,
  flag,
  optional,
  type Type,
  text,
  union,
  word,
} from '../schema/index.js';
import { type ImageWish, makeFile, makeImage } from './create-work.js';

const preallocation = word('PreallocMode', 'off', 'metadata', 'falloc', 'full');
const reference: Type<BlockdevOptions | string> = alternate('BlockdevRef', () => [
  blockdevOptions,
  text,
]);

type Wish = { readonly driver: string };

const options: Type<Wish> = union('BlockdevCreateOptions', {
  base: { driver: word('BlockdevDriver', ...DRIVERS) },
  tag: 'driver',
  branches: () => ({
    file: {
      filename: about(text, 'the file; one that is there is emptied'),
      size: about(count, 'bytes'),
      preallocation: about(optional(preallocation), 'off, falloc or full; default off'),
      nocow: about(optional(flag), 'has no effect'),
    },
    qcow2: {
      file: about(reference, 'the node that holds the image from then on, and that nobody uses'),
      'data-file': about(optional(reference), 'the node that holds the bytes of the disk'),
      'data-file-raw': optional(flag),
      'extended-l2': optional(flag),
      size: about(count, 'bytes of the disk'),
      version: optional(word('BlockdevQcow2Version', 'v2', 'v3')),
      'backing-file': about(optional(text), 'the name that stands in the image'),
      'backing-fmt': about(
        optional(word('BlockdevDriver', ...DRIVERS)),
        'needed with backing-file',
      ),
      'cluster-size': about(optional(count), 'bytes; default 64 KiB'),
      preallocation: optional(preallocation),
      'lazy-refcounts': optional(flag),
      'refcount-bits': optional(count),
      'compression-type': optional(word('Qcow2CompressionType', 'zlib', 'zstd')),
    },
  }),
});

type Work = (signal: AbortSignal) => Promise<void>;

/** What can be made, by its driver. */
const MAKERS: Readonly<Record<string, (control: Control, wish: never, id: string) => Work>> = {
  file: (control, wish: FileWish) => {
    const filename = control.files.check(wish.filename);
    return (signal) => makeFile(control, { ...wish, filename }, signal);
  },
  // No name that a client gives has this mark.
  qcow2: (control, wish: ImageWish, id) => (signal) =>
    makeImage(control, wish, `#create-${id}`, signal),
};

/** Makes new files and images. */
export const creations: readonly Command<Control>[] = [
  command({
    name: 'blockdev-create',
    about:
      'Makes a file, or an image in a node; a job does it, which stays until it is dismissed. What the file or node held is gone then.',
    differs: 'A backing file needs its format.',
    args: { 'job-id': text, options },
    run: (control: Control, { 'job-id': id, options: wish }) => {
      const maker = MAKERS[wish.driver];
      if (maker === undefined) throw refusal('Driver does not support blockdev-create');
      const make = maker(control, wish as never, control.jobs.checkFree(id));
      const how = { autoFinalize: true, autoDismiss: false, speed: 0 };
      const listing = { id, type: 'create', ...how } as const;
      control.jobs.add(listing, creation(make).register());
    },
  }),
];

function creation(make: Work): Job<void> {
  let doneBytes = 0;
  return new Job<void>({
    what: 'a create',
    work: async ({ ending }) => {
      try {
        await make(ending);
      } finally {
        doneBytes = 1;
      }
    },
    counted: () => ({ totalBytes: 1, doneBytes }),
  });
}
