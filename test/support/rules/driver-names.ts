/** Who may ask what a driver is called: its own folder alone. Everybody else asks the registry what they want to know. */
import { type SourceTree, withoutComments } from './source-tree.js';

const NAME = /\bdriver(?:Name)?\b/.source;

/** What tells drivers apart by their names, with the name in question where it is said. */
const COMPARISONS = [
  new RegExp(`${NAME}['"\\]]*\\s*[!=]==?\\s*['"\`]([\\w-]+)`, 'g'),
  new RegExp(`['"\`]([\\w-]+)['"\`]\\s*[!=]==?\\s*[\\w.?()\\s]*${NAME}(?!\\.)`, 'g'),
  new RegExp(`\\bswitch \\([\\w.?]*${NAME}\\)`, 'g'),
  new RegExp(`\\.(?:includes|has|test|startsWith)\\([\\w.?]*${NAME}\\)`, 'g'),
];

const OWN_FOLDER = /^block\/drivers\/([^/]+)\//;

/** Places that compare the name of a driver that is not their own. */
export function findDriverNames(tree: SourceTree): string[] {
  return [...tree].flatMap(([file, text]) => {
    const own = OWN_FOLDER.exec(file)?.[1];
    const code = withoutComments(text);
    return COMPARISONS.flatMap((pattern) => [...code.matchAll(pattern)])
      .filter(([, name]) => name === undefined || name !== own)
      .map(
        ([found]) =>
          `${file} tells drivers apart by name (${found}): ask src/block/describe/questions.ts, or add a member to DriverKind`,
      );
  });
}
