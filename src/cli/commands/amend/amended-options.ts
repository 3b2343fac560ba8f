import type { AmendOptions } from '../../../block/index.js';
import { splitImageOptions } from '../../device/index.js';

type Amended = { -readonly [Key in keyof AmendOptions]: AmendOptions[Key] };

const VERSIONS: Readonly<Record<string, 2 | 3>> = { '0.10': 2, v2: 2, '1.1': 3, v3: 3 };
const FLAGS: Readonly<Record<string, boolean>> = { on: true, off: false };

/** What can be changed in place, by the names of qemu-img. */
const OPTIONS: Record<string, (amended: Amended, value: string) => void> = {
  compat: (amended, value) => {
    amended.version = choose('compat', value, VERSIONS);
  },
  lazy_refcounts: (amended, value) => {
    amended.lazyRefcounts = choose('lazy_refcounts', value, FLAGS);
  },
  backing_fmt: (amended, value) => {
    amended.backingFormat = choose('backing_fmt', value, { raw: 'raw', qcow2: 'qcow2' } as const);
  },
};

const COPY = 'it takes a copy: lacuna copy -O qcow2 -o';

/** What images have, and cannot have otherwise without more ado. */
const OTHERS: Readonly<Record<string, string>> = {
  size: 'use "lacuna resize"',
  backing_file: 'use "lacuna rebase"',
  cluster_size: `${COPY} cluster_size=SIZE`,
  refcount_bits: `${COPY} refcount_bits=BITS`,
  extended_l2: `${COPY} extended_l2=on`,
  compression_type: `${COPY} compression_type=TYPE`,
  preallocation: `${COPY} preallocation=MODE`,
  data_file: `${COPY} data_file=FILE`,
  data_file_raw: `${COPY} data_file_raw=on,data_file=FILE`,
  encryption: 'encrypted images are not known here',
};

/**
 * Reads lists of `name=value` for `lacuna amend`.
 *
 * @throws TypeError for what cannot be changed in place, and says what to do instead.
 */
export function parseAmendedOptions(lists: readonly string[]): AmendOptions {
  const amended: Amended = {};
  for (const [name, value] of splitImageOptions(lists)) {
    const other = OTHERS[name.startsWith('encrypt') ? 'encryption' : name];
    if (other !== undefined) {
      throw new TypeError(`-o ${name}: it cannot be changed in place; ${other}`);
    }
    if (!Object.hasOwn(OPTIONS, name)) {
      const known = Object.keys(OPTIONS).join(', ');
      throw new TypeError(`-o ${name}: an image has no such option to change; it has: ${known}`);
    }
    if (value === undefined) throw new TypeError(`-o ${name}: say its value, as ${name}=VALUE`);
    OPTIONS[name](amended, value);
  }
  return amended;
}

function choose<T>(name: string, value: string, choices: Readonly<Record<string, T>>): T {
  if (Object.hasOwn(choices, value)) return choices[value];
  throw new TypeError(`-o ${name}=${value}: it is one of ${Object.keys(choices).join(', ')}`);
}
