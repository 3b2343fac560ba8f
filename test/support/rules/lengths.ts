/** How long files and functions may be. */
import type { SourceTree } from './source-tree.js';

/** The longest file: one that needs more has more than one thing to say. */
const MOST_LINES = 500;
/** The longest function. */
const MOST_FUNCTION_LINES = 70;
/** A function that is longer than this stands in the list below, with the reason. */
const FEW_FUNCTION_LINES = 40;

/** Functions above 40 lines, by file and name, with the lines that each may have at most: none may grow. */
export type LongFunctions = Readonly<
  Record<string, { readonly lines: number; readonly why: string }>
>;

export function findLong(tree: SourceTree, allowed: LongFunctions): string[] {
  const violations: string[] = [];
  const found = new Set<string>();
  for (const [file, text] of tree) {
    const lines = text.split('\n').length - 1;
    if (lines > MOST_LINES) {
      violations.push(
        `${file} has ${lines} lines: above ${MOST_LINES} a file is split by what it does`,
      );
    }
    for (const { name, length } of functionsOf(text)) {
      const place = `${file} ${name}`;
      found.add(place);
      const most = Math.min(allowed[place]?.lines ?? FEW_FUNCTION_LINES, MOST_FUNCTION_LINES);
      if (length <= most) continue;
      violations.push(
        `${place} has ${length} lines, and ${most} at most: split it, or say why not`,
      );
    }
  }
  const gone = Object.keys(allowed).filter((place) => !found.has(place));
  return [
    ...violations,
    ...gone.map((place) => `${place} is allowed to be long, and is not there`),
  ];
}

interface FoundFunction {
  readonly name: string;
  /** Lines from its head to its end. */
  readonly length: number;
}

const HEADS = [
  /^(?:export )?(?:default )?(?:async )?function\*? ?(\w+)/,
  /^(?:export )?const (\w+) = (?:async )?(?:<[^>]*>)?\(.*(?:=>|\()$/,
  /^(?:export )?const (\w+)(?:: [^=]+)? = (?:async )?\(?.*=> \{$/,
  /^(?:(?:private|static|async|get|set|\*) ?)*(#?\w+)(?:<.*>)?\($/,
  /^(?:(?:private|static|async|get|set|\*) ?)*(#?\w+)(?:<.*>)?\(.*\{$/,
];

const NOT_NAMES = new Set(['if', 'for', 'while', 'switch', 'catch', 'return', 'describe', 'test']);

/** The functions of a file in the project's own format: each ends at the next line of its head's indentation. */
export function functionsOf(text: string): FoundFunction[] {
  const lines = text.split('\n');
  return lines.flatMap((line, start) => {
    const head = line.trimStart();
    const name = HEADS.map((pattern) => pattern.exec(head)?.[1]).find(
      (found) => found !== undefined,
    );
    if (name === undefined || NOT_NAMES.has(name)) return [];
    const indent = line.slice(0, line.length - head.length);
    const end = endOf(lines, start, indent);
    return end === undefined ? [] : [{ name, length: end - start + 1 }];
  });
}

/** The line that closes a function; undefined where it has no body of several lines. */
function endOf(lines: readonly string[], start: number, indent: string): number | undefined {
  let inBody = lines[start].endsWith('{');
  for (let at = start + 1; at < lines.length; at++) {
    const line = lines[at];
    if (!line.startsWith(indent) || /^\s/.test(line.slice(indent.length)) || line === '') continue;
    const rest = line.slice(indent.length);
    if (rest.startsWith('}') && inBody) return at;
    if (!inBody && rest.startsWith(')') && rest.endsWith('{')) inBody = true;
    else if (!rest.startsWith('}') && !rest.startsWith(')')) return undefined;
  }
  return undefined;
}
