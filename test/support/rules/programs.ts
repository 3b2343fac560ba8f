import { importsOf, type SourceTree, withoutComments } from './source-tree.js';

/** The unit tests that start programs, by themselves or through files of the tests that they import. */
export function findStarters(tests: SourceTree): string[] {
  const found: string[] = [];
  for (const file of tests.keys()) {
    if (!file.startsWith('unit/')) continue;
    const starter = reached(file, tests).find((each) => startsPrograms(tests.get(each) ?? ''));
    if (starter === undefined) continue;
    const how = starter === file ? 'by itself' : `through ${starter}`;
    found.push(`${file} starts programs, ${how}: move it to test/integration`);
  }
  return found;
}

/** A file, and all that it imports, however far around. */
function reached(file: string, tests: SourceTree): string[] {
  const files = new Set([file]);
  // A set also visits what is added meanwhile.
  for (const each of files) {
    for (const target of importsOf(each, withoutTypes(tests.get(each) ?? ''))) files.add(target);
  }
  return [...files];
}

function startsPrograms(text: string): boolean {
  return /['"](node:)?(child_process|cluster)['"]/.test(withoutComments(withoutTypes(text)));
}

/** A file that is imported for its types alone is not loaded. */
function withoutTypes(text: string): string {
  return text.replace(/\b(import|export) type [^;]*;/g, '');
}
