/** Names that are exported and that nobody imports. */
import { basename, dirname, join, normalize } from 'node:path/posix';
import { type SourceTree, withoutComments } from './source-tree.js';

/** Indexes that users of the package import. */
const PUBLIC = [
  'index.ts',
  'bitmap/index.ts',
  'nbd/index.ts',
  'qmp/index.ts',
  'qemu/index.ts',
  'repository/index.ts',
  'graph/index.ts',
  'daemon/index.ts',
  'errors/index.ts',
  'testing/index.ts',
];

interface Statement {
  readonly kind: 'import' | 'export';
  readonly names: readonly string[];
  readonly target: string;
}

/**
 * Exports that no other file imports: of a file, none of the sources or tests; of an index, none outside its folder. Names
 * that a public index has are used.
 *
 * @param users what else imports from the sources, such as tests: text by name
 */
export function findUnused(tree: SourceTree, users: ReadonlyMap<string, string>): string[] {
  const used = new Map<string, Set<string>>();
  const use = (file: string, names: readonly string[]) => {
    const all = used.get(file) ?? new Set();
    for (const name of names) all.add(name);
    used.set(file, all);
  };
  for (const [file, text] of tree) {
    for (const { names, target } of statementsOf(file, text)) use(target, names);
  }
  for (const text of users.values()) useFromOutside(text, use);
  const violations: string[] = [];
  for (const [file, text] of tree) {
    if (PUBLIC.includes(file)) continue;
    for (const name of exportsOf(file, text)) {
      const users = used.get(file);
      if (users?.has(name) || users?.has('*')) continue;
      violations.push(`${file} exports ${name}, which nobody imports: do not export it`);
    }
  }
  return violations;
}

function useFromOutside(text: string, use: (file: string, names: readonly string[]) => void): void {
  for (const [, list, file] of text.matchAll(
    /\{([^{}]*)\}\s*(?:from|=\s*await import\()\s*'#dist\/([^']+)\.js'/g,
  )) {
    use(`${file}.ts`, namesIn(list));
  }
  for (const [, file] of text.matchAll(
    /(?:dist\/|import\.meta\.resolve\('#dist\/|import\('#dist\/)([\w/-]+)\.js/g,
  )) {
    if (!new RegExp(`\\}\\s*from\\s*'#dist/${file}\\.js'`).test(text)) use(`${file}.ts`, ['*']);
  }
}

function statementsOf(file: string, text: string): Statement[] {
  const code = withoutComments(text);
  const at = (path: string) => normalize(join(dirname(file), path)).replace(/\.js$/, '.ts');
  const listed = [
    ...code.matchAll(/\b(import|export)\s+(?:type\s+)?\{([^}]*)\}\s*from\s*'(\.[^']*)'/g),
  ];
  const starred = [...code.matchAll(/\bexport \* from '(\.[^']*)'/g)];
  const loaded = [
    ...code.matchAll(
      /(?:\{([^{}]*)\} = )?await import\(\s*'(\.[^']*)'\s*,?\s*\)|import\('(\.[^']*)'\)/g,
    ),
  ];
  return [
    ...listed.map(([, kind, list, path]) => ({
      kind: kind as 'import' | 'export',
      names: namesIn(list),
      target: at(path),
    })),
    ...starred.map(([, path]) => ({ kind: 'export' as const, names: ['*'], target: at(path) })),
    ...loaded.map(([, list, path, bare]) => ({
      kind: 'import' as const,
      names: list === undefined ? ['*'] : namesIn(list.replaceAll(':', ' as ')),
      target: at(path ?? bare),
    })),
  ];
}

/** The names by which the other file knows them. */
function namesIn(list: string): string[] {
  return list
    .split(',')
    .map(
      (item) =>
        item
          .trim()
          .replace(/^type /, '')
          .split(/\s+as\s+/)[0],
    )
    .filter((name) => name !== '');
}

function exportsOf(file: string, text: string): string[] {
  const code = withoutComments(text);
  const declared = [
    ...code.matchAll(/^export (?:async )?(?:function\*?|class|const|interface|type) (\w+)/gm),
  ].map(([, name]) => name);
  // A type may be exported for whoever reads the declaration that names it.
  if (basename(file) !== 'index.ts') return declared.filter((name) => !isNamedAgain(name, code));
  const passedOn = [...code.matchAll(/\bexport\s+(?:type\s+)?\{([^}]*)\}\s*from/g)].flatMap(
    ([, list]) =>
      list
        .split(',')
        .map(
          (item) =>
            item
              .trim()
              .replace(/^type /, '')
              .split(/\s+as\s+/)
              .at(-1) ?? '',
        )
        .filter((name) => name !== ''),
  );
  return [...declared, ...passedOn];
}

function isNamedAgain(name: string, code: string): boolean {
  const isType = new RegExp(`^export (?:interface|type) ${name}\\b`, 'm').test(code);
  return isType && (code.match(new RegExp(`\\b${name}\\b`, 'g'))?.length ?? 0) > 1;
}
