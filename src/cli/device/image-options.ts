/** The options of qemu-img for new images: `-o cluster_size=1M,compat=1.1`, in its names and forms. */
import type { CopyOptions, NewImageOptions } from '../../copy/index.js';
import { parseSize } from '../../util/index.js';

/** What options say of a new image, and of the space that it takes. */
export interface ParsedImageOptions {
  image?: NewImageOptions;
  preallocation?: CopyOptions['preallocation'];
}

type Mutable = { -readonly [Key in keyof NewImageOptions]: NewImageOptions[Key] };

interface SaidOptions {
  image: Mutable;
  preallocation?: string;
  backingFile?: string;
  backingFormat?: string;
}

const OPTIONS: Record<string, (said: SaidOptions, value: string) => void> = {
  cluster_size: ({ image }, value) => {
    image.clusterSize = size('cluster_size', value);
  },
  compat: ({ image }, value) => {
    image.version = choose('compat', value, { '0.10': 2, v2: 2, '1.1': 3, v3: 3 });
  },
  refcount_bits: ({ image }, value) => {
    const widths = [1, 2, 4, 8, 16, 32, 64];
    const choices = Object.fromEntries(widths.map((bits) => [bits, bits]));
    image.refcountBits = choose('refcount_bits', value, choices);
  },
  extended_l2: ({ image }, value) => {
    image.extendedL2 = flag('extended_l2', value);
  },
  compression_type: ({ image }, value) => {
    const types = { zlib: 'deflate', zstd: 'zstd' } as const;
    image.compressionType = choose('compression_type', value, types);
  },
  lazy_refcounts: ({ image }, value) => {
    image.lazyRefcounts = flag('lazy_refcounts', value);
  },
  data_file: ({ image }, value) => {
    image.dataFile = value;
  },
  data_file_raw: ({ image }, value) => {
    image.dataFileRaw = flag('data_file_raw', value);
  },
  preallocation: (said, value) => {
    said.preallocation = value;
  },
  backing_file: (said, value) => {
    said.backingFile = value;
  },
  backing_fmt: (said, value) => {
    said.backingFormat = value;
  },
};

/**
 * Reads lists of `name=value`, separated by commas; two commas are one of a value.
 *
 * @throws TypeError for what qemu-img has no such option for, or no such value.
 */
export function parseImageOptions(
  lists: readonly string[],
  backing: { file?: string; format?: string },
): ParsedImageOptions {
  const said: SaidOptions = { image: {}, backingFile: backing.file, backingFormat: backing.format };
  for (const [name, value] of splitImageOptions(lists)) {
    if (!Object.hasOwn(OPTIONS, name)) {
      throw new TypeError(
        `-o ${name}: an image has no such option; it has: ${Object.keys(OPTIONS).join(', ')}`,
      );
    }
    OPTIONS[name](said, givenValue(name, value));
  }
  const { image, preallocation, backingFile, backingFormat } = said;
  if (backingFile === undefined && backingFormat !== undefined) {
    throw new TypeError('-F is the format of a backing file: name that with -B');
  }
  if (backingFile !== undefined && backingFormat === undefined) {
    throw new TypeError('say the format of the backing file with -F: it is never guessed');
  }
  if (backingFile !== undefined) {
    image.backing = { filename: backingFile, format: backingFormat! };
  }
  return {
    ...(Object.keys(image).length > 0 && { image }),
    ...(preallocation !== undefined && {
      preallocation: preallocation as CopyOptions['preallocation'],
    }),
  };
}

/** The names and values of lists of options, in order. */
export function splitImageOptions(lists: readonly string[]): [string, string | undefined][] {
  const fields = lists.flatMap((list) => list.match(/(?:[^,]|,,)+/g) ?? []);
  return fields.map((field) => {
    const [, name = field, value] = /^([^=]+)=(.*)$/s.exec(field) ?? [];
    return [name, value?.replaceAll(',,', ',')];
  });
}

function givenValue(name: string, value: string | undefined): string {
  if (value !== undefined) return value;
  throw new TypeError(`-o ${name}: say its value, as ${name}=VALUE`);
}

function choose<T>(name: string, value: string, choices: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(choices, value)) return choices[value];
  throw new TypeError(`-o ${name}=${value}: it is one of ${Object.keys(choices).join(', ')}`);
}

function size(name: string, value: string): number {
  try {
    return parseSize(value);
  } catch (error) {
    throw new TypeError(`-o ${name}=${value}: ${(error as Error).message}`);
  }
}

function flag(name: string, value: string): boolean {
  return choose(name, value, { on: true, off: false });
}
