/** The table that people read, and back: a section for each role, kinds with the same outcome on one line. */
import type { Row } from './matrix.js';

const HEAD = `# Every command with every kind of path

What each command does with each kind of path that it takes: its exit code, what it says, and what became of the files.
\`npm run paths\` writes this page, and a test compares it: a change here is a change of what users see, to be read line by
line.

\`PATH\` is the path under test and \`FOLDER\` its folder. Where the exit code is 0, only warnings are told. "replaced" is
a new file in place of the old one, "written" the old file with other bytes.
`;

/** The whole page. `usage` tells how the command of a role is called. */
export function render(rows: readonly Row[], usage: (role: string) => string): string {
  const roles = [...new Set(rows.map(({ role }) => role))];
  const sections = roles.map((role) => {
    const own = rows.filter((row) => row.role === role);
    return `## ${role}\n\n    ${usage(role)}\n\n${renderRows(own)}`;
  });
  return `${HEAD}\n${sections.join('\n')}`;
}

function renderRows(rows: readonly Row[]): string {
  const groups = new Map<string, string[]>();
  for (const row of rows) {
    const cells = [row.exit, row.says, row.files].map(toCell).join(' | ');
    groups.set(cells, [...(groups.get(cells) ?? []), row.kind]);
  }
  const lines = [...groups].map(([cells, kinds]) => `| ${kinds.join('; ')} | ${cells} |\n`);
  return `| kind of path | exit | says | files |\n| --- | --- | --- | --- |\n${lines.join('')}`;
}

/** The rows of a page, in the order of the page. */
export function parse(page: string): Row[] {
  const [, ...sections] = page.split(/^## /m);
  return sections.flatMap((section) => {
    const [role, ...lines] = section.split('\n');
    const cells = lines
      .filter((line) => line.startsWith('| '))
      .slice(2)
      .map((line) => line.slice(2, -2).split(' | ').map(fromCell));
    return cells.flatMap(([kinds, exit, says, files]) =>
      kinds.split('; ').map((kind) => ({ role, kind, exit, says, files })),
    );
  });
}

const ESCAPES: readonly (readonly [string, string])[] = [
  ['|', '&#124;'],
  ['<', '&lt;'],
  ['\n', '<br>'],
];

function toCell(text: string): string {
  const escaped = ESCAPES.reduce((each, [from, to]) => each.replaceAll(from, to), text);
  return escaped === '' ? '-' : escaped;
}

function fromCell(cell: string): string {
  if (cell === '-') return '';
  return ESCAPES.toReversed().reduce((each, [from, to]) => each.replaceAll(to, from), cell);
}
