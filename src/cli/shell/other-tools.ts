/** What people type who know other tools, and what does the same here. */

/** Commands of qemu-img, of programs for files, and of backup tools. */
const COMMANDS: Readonly<Record<string, string>> = {
  convert: 'lacuna copy -O FORMAT SOURCE TARGET',
  dd: 'lacuna copy SOURCE TARGET',
  cp: 'lacuna copy SOURCE TARGET',
  clone: 'lacuna copy SOURCE TARGET',
  import: 'lacuna copy - TARGET < FILE, or lacuna copy SOURCE TARGET',
  export: 'lacuna copy SOURCE TARGET, or as an NBD server: lacuna serve SOURCE',
  nbd: 'lacuna serve SOURCE',
  mount: 'lacuna serve SOURCE, and the NBD client of the system',
  cmp: 'lacuna compare A B',
  size: 'lacuna info SOURCE',
  extents: 'lacuna map SOURCE',
  stream: 'lacuna rebase -b "" IMAGE',
  flatten: 'lacuna rebase -b "" IMAGE',
  merge: 'lacuna commit IMAGE, or of bitmaps: lacuna bitmap merge',
  hash: 'lacuna digest SOURCE',
  checksum: 'lacuna digest SOURCE',
  sha256sum: 'lacuna digest SOURCE',
  replicate: 'lacuna mirror --qmp SOCKET TARGET',
  snapshots: 'lacuna list REPOSITORY, or of an image: lacuna snapshot -l IMAGE',
  init: 'lacuna backup SOURCE REPOSITORY, which makes a repository in a new folder',
  forget: 'lacuna prune REPOSITORY',
  delete: 'lacuna prune REPOSITORY',
  ls: 'lacuna list REPOSITORY',
  bench: 'fio on "lacuna serve SOURCE"; a copy prints its own rate',
};

const DESCRIPTION = 'write the description in place of the name: driver=qcow2,file.filename=NAME';

/** Options of these tools; `*` is for commands that are not named. */
const OPTIONS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  '*': {
    '--image-opts': DESCRIPTION,
    '--target-image-opts': DESCRIPTION,
    '--object':
      'TLS keys and secrets are said in an NBD URI or a description: see docs/descriptions.md',
    '--output': 'say --json in place of --output=json; text is the default',
    '--output=json': 'say --json',
    '--output=human': 'that is the default: leave it out',
    '--no-extents': 'leave it out: a source without status is read whole',
    '-t': 'leave it out: what was written is durable at the end, unless a copy has --no-flush',
    '-T': 'leave it out: there are no cache modes of sources; worker threads are --threads',
  },
  copy: {
    '-C': 'say --connections',
    '-R': 'say --requests',
    '-T': 'say --threads; there are no cache modes of sources',
    '-S': 'say --detect-zeroes on, or unmap; what status says is zero is never read',
    '--sparse': 'say --detect-zeroes on, or unmap; what status says is zero is never read',
    '-m': 'say --requests',
    '-W': 'leave it out: writes are in any order, unless --sequential is said',
    '-r': 'say --rate',
    '-s': 'write snapshot=NAME into a description: driver=qcow2,file.filename=NAME,snapshot=NAME',
    '-l': 'write snapshot=NAME into a description: driver=qcow2,file.filename=NAME,snapshot=NAME',
    '-b': 'say -B',
    '--destination-is-zero': 'say --target-is-zero',
    '--flush': 'that is the default: leave it out',
    '--synchronous': 'say --requests 1',
    '--queue-size': 'say --requests and --request-size',
    '--salvage': 'say --on-read-error ignore',
  },
  compare: { '-s': 'say --strict' },
  commit: {
    '-b': 'commit goes down one layer at a time: run it for each',
    '-d': 'leave it out: the image is not emptied, and stays as it is',
  },
  info: {
    '--list': 'the server shows one export at a time: name it in the URI',
    '-L': 'the server shows one export at a time: name it in the URI',
    '--map': 'lacuna map SOURCE',
    '--size': 'lacuna info --json SOURCE | jq .size',
    '--can': 'lacuna info --json SOURCE | jq .capabilities',
    '--is': 'lacuna info --json SOURCE | jq .capabilities',
    '-O': 'that is an option of lacuna copy',
  },
  bitmap: {
    '--add': 'lacuna bitmap add IMAGE BITMAP',
    '--remove': 'lacuna bitmap remove IMAGE BITMAP',
    '--clear': 'lacuna bitmap clear IMAGE BITMAP',
    '--enable': 'lacuna bitmap enable IMAGE BITMAP',
    '--disable': 'lacuna bitmap disable IMAGE BITMAP',
    '--merge': 'lacuna bitmap merge IMAGE BITMAP SOURCE',
  },
};

/** What to do in place of what commander's message does not know; undefined where nobody can tell. */
export function hintOf(message: string, argv: readonly string[]): string | undefined {
  const [, kind, word = ''] = /^error: unknown (command|option) '([^']+)'/.exec(message) ?? [];
  if (kind === 'command') return own(COMMANDS, word);
  if (kind !== 'option') return undefined;
  const name = argv.find((argument) => !argument.startsWith('-')) ?? '';
  const ofCommand = own(OPTIONS, name) ?? {};
  return own(ofCommand, word) ?? own(ofCommand, word.replace(/=.*/, '')) ?? own(OPTIONS['*'], word);
}

function own<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}
