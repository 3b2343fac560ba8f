import type picocolors from 'picocolors';
import type { ContextKinds } from '../device/index.js';
import { printable } from '../shell/index.js';
import { type Cells, formatBytes, formatShare } from '../text/index.js';

type Colors = ReturnType<typeof picocolors.createColors>;

/** One context of a disk, ready to be drawn. */
export interface PictureRow {
  readonly kinds: ContextKinds;
  readonly cells: Cells;
}

export interface PictureStyle {
  readonly unicode: boolean;
  readonly colors: Colors;
}

/** From "a little" to "all of it". */
const SHADES = { unicode: ['░', '▒', '▓', '█'], ascii: ['-', '+', '%', '#'] };

/** What the other kinds look like where a cell holds nothing of the first. */
const FILLERS: Record<string, { unicode: string; ascii: string }> = {
  zero: { unicode: '0', ascii: '0' },
  backing: { unicode: '○', ascii: 'o' },
};
const EMPTY = { unicode: '·', ascii: '.' };

/** A row of cells with its scale, its legend and its totals, as lines of text. */
export function renderPicture(row: PictureRow, style: PictureStyle): string[] {
  const { cells, kinds } = row;
  if (cells.size === 0) return [`${printable(kinds.context)}: the device is empty`];
  return [
    renderCells(row, style),
    renderScale(cells),
    renderLegend(row, style),
    ...renderTotals(row),
  ];
}

/** The cells alone: one character each. */
export function renderCells({ cells, kinds }: PictureRow, style: PictureStyle): string {
  const paint = paintsOf(kinds, style);
  const shades = style.unicode ? SHADES.unicode : SHADES.ascii;
  let line = '';
  for (let cell = 0; cell < cells.count; ) {
    // Neighbours of one kind share one colour sequence.
    const kind = mainKind(cells, cell);
    let run = '';
    for (; cell < cells.count && mainKind(cells, cell) === kind; cell++) {
      run += kind === 0 ? shadeOf(cells, cell, shades) : fillerOf(kinds, kind, style);
    }
    line += paint[kind](run);
  }
  return line;
}

/** However little a cell holds of the first kind, it shows: a lone block must not vanish on a big disk. */
function mainKind(cells: Cells, cell: number): number {
  if (cells.bytesAt(cell, 0) > 0) return 0;
  let main = 1;
  for (let kind = 2; kind < cells.kinds; kind++) {
    if (cells.bytesAt(cell, kind) > cells.bytesAt(cell, main)) main = kind;
  }
  return main;
}

function shadeOf(cells: Cells, cell: number, shades: readonly string[]): string {
  const share = cells.bytesAt(cell, 0) / cells.sizeOf(cell);
  // The full shade is kept for full cells, as nothing but an empty one looks empty.
  if (share === 1) return shades[3];
  return shades[Math.min(2, Math.floor(share * 3))];
}

function fillerOf(kinds: ContextKinds, kind: number, style: PictureStyle): string {
  const filler = FILLERS[kinds.names[kind]] ?? EMPTY;
  return style.unicode ? filler.unicode : filler.ascii;
}

function paintsOf(kinds: ContextKinds, { colors }: PictureStyle): Array<(text: string) => string> {
  return kinds.names.map((name) => {
    if (name === 'data' || name === 'here') return colors.green;
    if (name === 'dirty' || name === 'flagged') return colors.yellow;
    return name === 'zero' || name === 'backing' ? colors.blue : colors.dim;
  });
}

/** `0` under the first cell, the size under the last. */
function renderScale(cells: Cells): string {
  const size = formatBytes(cells.size);
  return `0${size.padStart(Math.max(cells.count - 1, size.length + 1))}`;
}

function renderLegend({ kinds, cells }: PictureRow, style: PictureStyle): string {
  const paint = paintsOf(kinds, style);
  const shades = style.unicode ? SHADES.unicode : SHADES.ascii;
  const [first, ...others] = kinds.names;
  const parts = [`${paint[0](shades.join(''))} ${first}: some to all of a cell`];
  others.forEach((name, i) => {
    parts.push(`${paint[i + 1](fillerOf(kinds, i + 1, style))} ${name}`);
  });
  return `${parts.join('   ')}   one cell is ${formatBytes(cells.sizeOf(0))}`;
}

function renderTotals({ kinds, cells }: PictureRow): string[] {
  const width = Math.max(...kinds.names.map((name) => name.length));
  return kinds.names.map((name, kind) => {
    const bytes = cells.totalOf(kind);
    const share = formatShare(bytes, cells.size);
    return `  ${name.padEnd(width)}  ${formatBytes(bytes).padStart(10)}  ${share.padStart(9)}`;
  });
}
