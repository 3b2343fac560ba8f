import { dirname, join, normalize } from 'node:path/posix';

/** Source files by their path below `src`, such as `bitmap/index.ts`. */
export type SourceTree = ReadonlyMap<string, string>;

/** Rooms by rank: a room may look at its own rank and at lower ones. */
const RANKS: Record<string, number> = {
  errors: 0,
  util: 0,
  files: 1,
  wasm: 2,
  extent: 2,
  bitmap: 3,
  block: 4,
  copy: 5,
  serve: 5,
  qemu: 6,
  repository: 6,
  cli: 7,
};

/** Rooms beside the ladder, which know only these. */
const ISLANDS = ['nbd', 'qmp', 'qcow2'];
const ISLANDS_KNOW = ['errors', 'util', 'extent'];

/** Only these files, and those in these folders, may look into an island; `index` is the public door. */
const BRIDGES: Record<string, string[]> = {
  nbd: ['block/nbd.ts', 'block/nbd-uri.ts', 'block/description.ts', 'serve/', 'index.ts'],
  qcow2: ['block/qcow2.ts', 'block/qcow2/', 'index.ts'],
};

/** Folders of `src/nbd` by rank: the two ends share what lies below, and do not know each other. */
const NBD_RANKS: Record<string, number> = { wire: 0, stream: 1, client: 2, server: 2 };

interface Mention {
  readonly pattern: RegExp;
  readonly rooms: readonly string[];
  readonly reason: string;
}

const MENTIONS: readonly Mention[] = [
  {
    pattern: /\binstance\.exports\b|\bWebAssembly\b/,
    rooms: ['wasm'],
    reason:
      'raw pointers and WASM instances stay behind src/wasm, or nobody can tell who frees what',
  },
  {
    pattern: /\bworker_threads\b|\bpiscina\b|\bAtomics\b/,
    rooms: ['wasm', 'copy', 'serve'],
    reason:
      'only src/wasm, src/copy and src/serve know that threads exist, so that all else may ignore them',
  },
];

/** The longest file: who needs more has more than one thing to say. */
const MOST_LINES = 500;

/** Everything in a tree that breaks a rule, as sentences that say which rule and why. */
export function findViolations(tree: SourceTree): string[] {
  const imports = new Map([...tree].map(([file, text]) => [file, importsOf(file, text)]));
  const violations: string[] = [];
  for (const [file, targets] of imports) {
    for (const target of targets) {
      const reason = forbids(file, target);
      if (reason !== undefined) violations.push(`${file} imports ${target}: ${reason}`);
    }
  }
  for (const [file, text] of tree)
    violations.push(...mentionsIn(file, text), ...sizeOf(file, text));
  const cycle = findCycle(imports);
  if (cycle !== undefined) {
    violations.push(
      `${cycle.join(' -> ')}: files that import each other cannot be understood alone`,
    );
  }
  return violations;
}

/** The files below `src` that a file imports or re-exports, types included. */
export function importsOf(file: string, text: string): string[] {
  const pattern = /\bfrom\s*['"](\.[^'"]*)['"]|\bimport\s*\(?\s*['"](\.[^'"]*)['"]/g;
  return [...withoutComments(text).matchAll(pattern)]
    .map((match) => normalize(join(dirname(file), match[1] ?? match[2])))
    .filter((target) => !target.startsWith('..'))
    .map((target) => target.replace(/\.js$/, '.ts'));
}

function forbids(file: string, target: string): string | undefined {
  const [from, to] = [roomOf(file), roomOf(target)];
  if (from === to) return from === 'nbd' ? forbidsInNbd(file, target) : undefined;
  if (to === 'cli') return 'the command is built on the library, never the other way round';
  const bridges = BRIDGES[to];
  const isBridge = (bridge: string) =>
    bridge.endsWith('/') ? file.startsWith(bridge) : file === bridge;
  if (bridges !== undefined && !bridges.some(isBridge) && from !== 'testing') {
    return `only ${bridges.join(', ')} may look into src/${to}, so that it can be replaced`;
  }
  if (ISLANDS.includes(from)) return forbidsIsland(from, to);
  if (to === '') return from === 'cli' ? undefined : 'the public index is for users of the package';
  if (to === 'testing') return 'test suites are shipped for others, and nothing may depend on them';
  if (RANKS[from] === undefined || RANKS[to] === undefined) return undefined;
  if (RANKS[to] <= RANKS[from]) return undefined;
  return `a lower room never imports a higher one (${from} lies below ${to})`;
}

function forbidsInNbd(file: string, target: string): string | undefined {
  const [from, to] = [file.split('/')[1], target.split('/')[1]];
  if (from === to || NBD_RANKS[from] === undefined || NBD_RANKS[to] === undefined) return undefined;
  if (NBD_RANKS[to] < NBD_RANKS[from]) return undefined;
  return `nbd/${from} does not know nbd/${to}: what both ends need is in nbd/stream or nbd/wire`;
}

function forbidsIsland(from: string, to: string): string | undefined {
  if (ISLANDS_KNOW.includes(to)) return undefined;
  return `src/${from} knows only ${ISLANDS_KNOW.join(', ')}: it must be usable without the engine`;
}

function mentionsIn(file: string, text: string): string[] {
  const code = withoutComments(text);
  return MENTIONS.flatMap(({ pattern, rooms, reason }) => {
    const found = pattern.exec(code);
    return found === null || rooms.includes(roomOf(file))
      ? []
      : [`${file} mentions ${found[0]}: ${reason}`];
  });
}

function sizeOf(file: string, text: string): string[] {
  const lines = text.split('\n').length - 1;
  return lines <= MOST_LINES
    ? []
    : [`${file} has ${lines} lines: above ${MOST_LINES} a file is split by what it does`];
}

/** The folder below `src`; empty for files that lie directly in it. */
function roomOf(file: string): string {
  return file.includes('/') ? file.slice(0, file.indexOf('/')) : '';
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}

/** The first cycle of imports that a walk in depth meets, as a path from a file back to itself. */
function findCycle(imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): string[] | undefined => {
    const seen = path.indexOf(file);
    if (seen !== -1) return [...path.slice(seen), file];
    if (done.has(file)) return undefined;
    for (const target of imports.get(file) ?? []) {
      const cycle = visit(target, [...path, file]);
      if (cycle !== undefined) return cycle;
    }
    done.add(file);
    return undefined;
  };
  for (const file of imports.keys()) {
    const cycle = visit(file, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}
