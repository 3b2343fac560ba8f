/** `npm run paths`: writes the table as it is now. */
import { writeFileSync } from 'node:fs';
import { KINDS } from './kinds.js';
import { belong, type Row } from './matrix.js';
import { ROLES } from './roles.js';
import { collectRows } from './start.js';
import { render } from './table.js';

export const TABLE = new URL('table.md', import.meta.url);

function usageOf(name: string): string {
  const role = ROLES.find((each) => each.name === name);
  return `lacuna ${role?.args('FOLDER/PATH', (file) => file).join(' ')}`.replaceAll('FOLDER/', '');
}

function missing(rows: readonly Row[]): string[] {
  const wanted = KINDS.filter((kind) => ROLES.some((role) => belong(kind, role)));
  return wanted.map(({ name }) => name).filter((name) => !rows.some(({ kind }) => kind === name));
}

const rows = await collectRows();
const absent = missing(rows);
if (absent.length > 0) {
  console.error(`Only root can make: ${absent.join(', ')}. The table stays as it was.`);
  process.exitCode = 1;
} else {
  writeFileSync(TABLE, render(rows, usageOf));
  console.log(`${rows.length} rows`);
}
