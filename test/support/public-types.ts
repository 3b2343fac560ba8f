import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Node, SyntaxKind } from 'typescript/unstable/ast';
import {
  API,
  type Symbol as ApiSymbol,
  type Checker,
  type Project,
  SymbolFlags,
} from 'typescript/unstable/sync';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BUILT = `${ROOT}dist/`;

/** A name that the package exports, and what its declarations say. */
export interface PublicName {
  /** The import, such as `lacuna/nbd`. */
  readonly subpath: string;
  readonly name: string;
  readonly documented: boolean;
  /** Public members of an interface or class that have no documentation. */
  readonly bareMembers: readonly string[];
  /** Types of this package that the declaration names. */
  readonly mentions: readonly string[];
}

/** All that the declarations of the built package tell its users. */
export function readPublicNames(): PublicName[] {
  const { exports } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as {
    exports: Record<string, string | { types: string }>;
  };
  const api = new API({ cwd: ROOT });
  try {
    const snapshot = api.updateSnapshot({ openProjects: [`${ROOT}tsconfig.json`] });
    return Object.entries(exports).flatMap(([path, target]) => {
      if (typeof target === 'string') return [];
      // Those that are published are a copy, which no source and no test imports.
      const types = target.types.replace('./dist/types/', `${ROOT}dist/`);
      const project = snapshot.getDefaultProjectForFile(types);
      if (project === undefined) throw new Error(`${types} is not built`);
      return namesOf(project, path.replace(/^\./, 'lacuna'), types);
    });
  } finally {
    api.close();
  }
}

function namesOf(project: Project, subpath: string, file: string): PublicName[] {
  const { checker, program } = project;
  const module = checker.getSymbolAtLocation(program.getSourceFile(file)!)!;
  return checker.getExportsOfModule(module).map((exported) => {
    const symbol = resolved(checker, exported);
    return {
      subpath,
      name: exported.name,
      documented: isDocumented(checker, symbol),
      bareMembers: bareMembers(project, symbol),
      mentions: mentionsOf(project, symbol),
    };
  });
}

function resolved(checker: Checker, symbol: ApiSymbol): ApiSymbol {
  return symbol.flags & SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
}

function isDocumented(checker: Checker, symbol: ApiSymbol): boolean {
  const tags = checker.getJsDocTagsOfSymbol(symbol).map(({ name }) => name);
  return tags.includes('internal') || checker.getDocumentationCommentOfSymbol(symbol).trim() !== '';
}

/** Symbols of the language, private names and constructors say what they are. */
function bareMembers(project: Project, symbol: ApiSymbol): string[] {
  const { checker } = project;
  const members = [...symbol.getMembers().values()];
  if (symbol.flags & SymbolFlags.Class) members.push(...symbol.getExports().values());
  const bare = members
    .filter(({ flags }) => !(flags & (SymbolFlags.TypeParameter | SymbolFlags.Prototype)))
    .filter(({ name }) => !/^__|^#|@/.test(name))
    .filter((member) => !isDocumented(checker, member))
    .map(({ name }) => name);
  if (bare.length === 0) return bare;
  const promised = implementedBy(project, symbol).flatMap((type) =>
    [...type.getMembers().values()].filter((member) => isDocumented(checker, member)),
  );
  return bare.filter((name) => !promised.some((member) => member.name === name));
}

/** The interfaces of a class, from which editors take the documentation of its members. */
function implementedBy({ checker }: Project, symbol: ApiSymbol): ApiSymbol[] {
  const found: ApiSymbol[] = [];
  const visit = (node: Node): void => {
    if (node.kind !== SyntaxKind.ExpressionWithTypeArguments) node.forEachChild(visit);
    else node.forEachChild((name) => found.push(...symbolsAt(checker, name)));
  };
  for (const node of declarationsOf(symbol)) {
    node.forEachChild((child) => {
      if (child.kind === SyntaxKind.HeritageClause) visit(child);
    });
  }
  return found;
}

/** The types of this package that the declarations of a symbol name, those of its internal members excepted. */
function mentionsOf({ checker }: Project, symbol: ApiSymbol): string[] {
  const found = new Set<string>();
  const visit = (node: Node): void => {
    if (isInternal(node)) return;
    if (node.kind === SyntaxKind.Identifier) {
      for (const type of symbolsAt(checker, node)) if (isOwnType(type)) found.add(type.name);
    }
    node.forEachChild(visit);
  };
  for (const node of declarationsOf(symbol)) node.forEachChild(visit);
  found.delete(symbol.name);
  return [...found];
}

function isInternal(node: Node): boolean {
  return (node.jsDoc ?? []).some((doc) => doc.getText().includes('@internal'));
}

function declarationsOf({ declarations }: ApiSymbol): Node[] {
  return declarations
    .filter(({ path }) => path.startsWith(BUILT))
    .flatMap((declaration) => declaration.resolve() ?? []);
}

function symbolsAt(checker: Checker, node: Node): ApiSymbol[] {
  const symbol = checker.getSymbolAtLocation(node);
  return symbol === undefined ? [] : [resolved(checker, symbol)];
}

function isOwnType({ flags, declarations }: ApiSymbol): boolean {
  const types =
    SymbolFlags.Class | SymbolFlags.Interface | SymbolFlags.TypeAlias | SymbolFlags.Enum;
  return (flags & types) !== 0 && declarations.some(({ path }) => path.startsWith(BUILT));
}
