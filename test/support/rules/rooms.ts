/** Which room may look into which, and which folder inside a room. What is not listed here fails. */
import { basename, dirname } from 'node:path/posix';
import { importsOf, loadedOnDemand, type SourceTree, withoutComments } from './source-tree.js';

/**
 * Rooms from the lowest line to the highest. A room may look at those of lower lines. Rooms of one line do not know
 * each other.
 */
const LINES: readonly (readonly string[])[] = [
  ['errors'],
  ['util'],
  ['files'],
  ['wasm', 'extent'],
  ['bitmap', 'nbd', 'qmp', 'qcow2'],
  ['block'],
  ['job'],
  ['copy'],
  ['serve', 'chain'],
  ['repository'],
  ['qemu'],
  ['graph'],
  ['daemon'],
  ['cli'],
];

/** Protocols and formats, which know nothing of devices, memory and files: they must be usable without the engine. */
const PURE = ['nbd', 'qmp', 'qcow2'];
const PURE_ROOMS_KNOW = ['errors', 'util', 'extent'];

/** Folders inside a folder, from the lowest line to the highest. Files directly in it come last. */
const FOLDERS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  bitmap: [['bits'], ['named'], ['files']],
  nbd: [
    ['wire', 'address'],
    ['stream', 'tls'],
    ['client', 'server'],
  ],
  'nbd/client': [['failures'], ['handshake', 'session', 'connection'], ['export'], ['reconnect']],
  'nbd/server': [
    ['failures', 'limits'],
    ['socket', 'export'],
    ['handshake'],
    ['session'],
    ['service'],
  ],
  qmp: [['wire'], ['client', 'server']],
  block: [['contract'], ['filters'], ['drivers'], ['describe'], ['open'], ['images']],
  'block/drivers': [['file', 'memory', 'nbd', 'null', 'raw'], ['qcow2']],
  'block/drivers/qcow2': [
    ['io'],
    ['read'],
    ['in-place'],
    ['write'],
    ['create'],
    ['bitmaps'],
    ['repair', 'check'],
    ['snapshots'],
    ['amend'],
    ['open'],
  ],
  copy: [
    ['options'],
    ['plan'],
    ['control'],
    ['move'],
    ['ends'],
    ['resume', 'threads'],
    ['run'],
    ['job'],
    ['view'],
  ],
  graph: [
    ['filters'],
    ['core'],
    ['options'],
    ['backup', 'change', 'jobs'],
    ['snapshot'],
    ['transaction'],
  ],
  'graph/jobs': [
    ['group'],
    ['rounds'],
    ['layers'],
    ['backup', 'commit', 'mirror', 'populate', 'stream'],
  ],
  daemon: [['schema'], ['core'], ['blockdev'], ['commands'], ['trace', 'watch']],
  qemu: [
    ['virsh'],
    ['state'],
    ['inspect'],
    ['view', 'guard'],
    ['push'],
    ['session'],
    ['populate', 'mirror', 'libvirt', 'migrate'],
  ],
  repository: [
    ['layout', 'work'],
    ['manifest', 'lock'],
    ['leaves'],
    ['disks'],
    ['store'],
    ['points'],
    ['backup', 'restore', 'verify'],
    ['prune', 'serve', 'diff'],
  ],
  'daemon/watch': [['http', 'meters', 'jobs'], ['metrics', 'state'], ['stream'], ['page']],
  cli: [['shell'], ['text'], ['device'], ['view'], ['commands']],
  testing: [['shared'], ['device']],
};

/** Folders whose index other rooms may use beside the room's own, and why that does not have it. */
const DOORS: Readonly<Record<string, string>> = {
  'bitmap/bits':
    'a copy needs bits alone, and would load bitmaps with names and files of them with the index',
  'bitmap/files':
    'how files of bitmaps are written is for resume files, not for users of the package',
  'copy/ends': 'what a copy makes files with is for src/chain, not for users of the package',
  'copy/move': 'how a digest is put together is for src/repository, not for users of the package',
  'copy/plan': 'how a walk tells what counts is for src/graph, not for users of the package',
  'copy/view':
    'how a live backup reads its disks is for src/graph and src/qemu, not for users of the package',
  'nbd/address': 'to read a URI no client has to be loaded',
  'nbd/server': 'src/serve puts threads into the server',
  'nbd/tls':
    'that keys can be used is found by src/daemon before somebody connects, not by users of the package',
  'qmp/wire': 'how commands are read as JSON is for src/daemon, not for users of the package',
};

interface Mention {
  readonly pattern: RegExp;
  /** Where it is looked for; everywhere unless said. */
  readonly within?: string;
  readonly places: readonly string[];
  readonly reason: string;
}

const MENTIONS: readonly Mention[] = [
  {
    pattern: /\binstance\.exports\b|\bWebAssembly\b/,
    places: ['wasm/'],
    reason:
      'raw pointers and WASM instances stay behind src/wasm, or nobody can tell who frees what',
  },
  {
    pattern: /\bworker_threads\b|\bpiscina\b|\bAtomics\b/,
    places: ['wasm/', 'copy/control/', 'copy/threads/', 'serve/', 'util/koffi-guard.ts'],
    reason: 'only these places know that threads exist, so that all else may ignore them',
  },
  {
    pattern: /\b[gs]et(Big)?(Uint|Int)(8|16|32|64)\b|\b(read|write)U64\b/,
    within: 'nbd/',
    places: ['nbd/wire/'],
    reason: 'messages are read where they are written, so that both ends mean the same by them',
  },
];

/** Everything in a tree that breaks a rule of the rooms, as sentences that say which rule and why. */
export function findForbidden(tree: SourceTree): string[] {
  const violations: string[] = [];
  for (const [file, text] of tree) {
    violations.push(...unknownFolders(file), ...mentionsIn(file, text));
    const onDemand = loadedOnDemand(file, text);
    for (const target of importsOf(file, text)) {
      const reason = forbids(file, target, onDemand.includes(target));
      if (reason !== undefined) violations.push(`${file} imports ${target}: ${reason}`);
    }
  }
  return violations;
}

function forbids(file: string, target: string, isOnDemand: boolean): string | undefined {
  const [from, to] = [roomOf(file), roomOf(target)];
  if (from === to) return forbidsInside(file, target, isOnDemand);
  if (to === 'cli') return 'the command is built on the library, never the other way round';
  if (to === '') return from === 'cli' ? undefined : 'the public index is for users of the package';
  if (to === 'testing') return 'test suites are shipped for others, and nothing may depend on them';
  const door = dirname(target);
  if (basename(target) !== 'index.ts' || (door !== to && DOORS[door] === undefined)) {
    return `a room is entered through its index, or through that of ${Object.keys(DOORS).join(', ')}`;
  }
  if (from === '' || from === 'testing') return undefined;
  if (PURE.includes(from) && !PURE_ROOMS_KNOW.includes(to)) {
    return `src/${from} knows only ${PURE_ROOMS_KNOW.join(', ')}: it must be usable without the engine`;
  }
  if (lineOf(LINES, to) < lineOf(LINES, from)) return undefined;
  return `a lower room never imports a higher one, nor one beside it (${from} does not lie above ${to})`;
}

/** Inside a room the same holds for its folders. */
function forbidsInside(file: string, target: string, isOnDemand: boolean): string | undefined {
  if (dirname(file) === dirname(target)) return undefined;
  const [parent, from, to] = partingOf(file, target);
  // An index would load all of its folder.
  if (basename(target) !== 'index.ts' && !isOnDemand)
    return `src/${dirname(target)} is entered through its index`;
  if (from === undefined) return undefined;
  if (to === undefined) return `src/${parent}/${from} lies below the files of src/${parent}`;
  const lines = FOLDERS[parent] ?? [];
  if (lineOf(lines, to) < lineOf(lines, from)) return undefined;
  return `src/${parent}/${from} does not lie above src/${parent}/${to}`;
}

/** The last folder that two files have in common, and the folder below it that each lies in, if any. */
function partingOf(a: string, b: string): [string, string | undefined, string | undefined] {
  const [left, right] = [dirname(a).split('/'), dirname(b).split('/')];
  let common = 0;
  while (common < left.length && left[common] === right[common]) common++;
  return [left.slice(0, common).join('/'), left[common], right[common]];
}

function unknownFolders(file: string): string[] {
  const folders = dirname(file) === '.' ? [] : dirname(file).split('/');
  for (const [depth, folder] of folders.entries()) {
    const parent = folders.slice(0, depth).join('/');
    const lines = depth === 0 ? [...LINES, ['testing']] : FOLDERS[parent];
    if (depth > 0 && parent === 'cli/commands') continue;
    if (lines === undefined || lineOf(lines, folder) === -1) {
      return [
        `${file}: the rules say nothing of src/${[...folders.slice(0, depth), folder].join('/')}; add it to test/support/rules/rooms.ts`,
      ];
    }
  }
  return [];
}

function lineOf(lines: readonly (readonly string[])[], name: string): number {
  return lines.findIndex((line) => line.includes(name));
}

function mentionsIn(file: string, text: string): string[] {
  const code = withoutComments(text);
  return MENTIONS.flatMap(({ pattern, within = '', places, reason }) => {
    if (!file.startsWith(within)) return [];
    const found = pattern.exec(code);
    if (found === null || places.some((place) => file.startsWith(place))) return [];
    return [`${file} mentions ${found[0]}: ${reason}`];
  });
}

/** The folder below `src`; empty for files that lie directly in it. */
function roomOf(file: string): string {
  return file.includes('/') ? file.slice(0, file.indexOf('/')) : '';
}
