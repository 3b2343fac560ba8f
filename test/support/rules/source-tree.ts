import { dirname, join, normalize } from 'node:path/posix';

/** Source files by their path below `src`, such as `bitmap/index.ts`. */
export type SourceTree = ReadonlyMap<string, string>;

/** The files below `src` that a file imports or re-exports, types included. */
export function importsOf(file: string, text: string): string[] {
  const pattern = /\bfrom\s*['"](\.[^'"]*)['"]|\bimport\s*\(?\s*['"](\.[^'"]*)['"]/g;
  return [...withoutComments(text).matchAll(pattern)]
    .map((match) => normalize(join(dirname(file), match[1] ?? match[2])))
    .filter((target) => !target.startsWith('..'))
    .map((target) => target.replace(/\.js$/, '.ts'));
}

/** Those of them that are loaded when they are needed, and not with the file. */
export function loadedOnDemand(file: string, text: string): string[] {
  return [...withoutComments(text).matchAll(/\bimport\(\s*['"](\.[^'"]*)['"]/g)].map((match) =>
    normalize(join(dirname(file), match[1])).replace(/\.js$/, '.ts'),
  );
}

export function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|\s)\/\/.*$/gm, '$1');
}
