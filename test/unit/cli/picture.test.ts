import picocolors from 'picocolors';
import { describe, expect, test } from 'vitest';
import { kindsOf } from '#dist/cli/device/context-kinds.js';
import { Cells } from '#dist/cli/text/cells.js';
import { renderCells, renderPicture } from '#dist/cli/view/picture.js';

const PLAIN = { unicode: true, colors: picocolors.createColors(false) };
const ASCII = { ...PLAIN, unicode: false };

/** A row of the allocation context from `[length, kind]` pairs: 0 data, 1 zero, 2 hole. */
function row(count: number, ranges: Array<[number, number]>, context = 'base:allocation') {
  const kinds = kindsOf(context);
  const size = ranges.reduce((sum, [length]) => sum + length, 0);
  const cells = new Cells({ size, count, kinds: kinds.names.length });
  let offset = 0;
  for (const [length, kind] of ranges) {
    cells.add(offset, length, kind);
    offset += length;
  }
  return { kinds, cells };
}

describe('picture', () => {
  test('shades a cell by how much of it is data', () => {
    const ranges: Array<[number, number]> = [
      [100, 0],
      [70, 0],
      [30, 2],
      [40, 0],
      [60, 2],
      [1, 0],
      [99, 2],
      [100, 2],
      [100, 1],
    ];
    expect(renderCells(row(6, ranges), PLAIN)).toBe('█▓▒░·0');
    expect(renderCells(row(6, ranges), ASCII)).toBe('#%+-.0');
  });

  test('shows one block of data on a disk of a petabyte', () => {
    const ranges: Array<[number, number]> = [
      [2 ** 49, 2],
      [512, 0],
      [2 ** 49 - 512, 2],
    ];
    expect(renderCells(row(10, ranges), PLAIN)).toBe('·····░····');
  });

  test('never shows a full cell for one that lacks a byte', () => {
    const ranges: Array<[number, number]> = [
      [2 ** 40 - 1, 0],
      [1, 2],
    ];
    expect(renderCells(row(1, ranges), PLAIN)).toBe('▓');
  });

  test('draws dirtiness by the same shades', () => {
    const ranges: Array<[number, number]> = [
      [4, 0],
      [6, 1],
    ];
    expect(renderCells(row(5, ranges, 'qemu:dirty-bitmap:b'), PLAIN)).toBe('██···');
  });

  test('has a scale, a legend and totals', () => {
    const lines = renderPicture(
      row(8, [
        [2 ** 20, 0],
        [2 ** 20, 2],
      ]),
      PLAIN,
    );
    expect(lines).toEqual([
      '████····',
      '0  2 MiB',
      '░▒▓█ data: some to all of a cell   0 zero   · hole   one cell is 256 KiB',
      '  data       1 MiB       50 %',
      '  zero         0 B        0 %',
      '  hole       1 MiB       50 %',
    ]);
  });

  test('colours only when colours are wanted', () => {
    const colors = picocolors.createColors(true);
    expect(renderCells(row(1, [[1, 0]]), { unicode: true, colors })).toContain('\u001b[');
    expect(renderCells(row(1, [[1, 0]]), PLAIN)).toBe('█');
  });

  test('says so when there is nothing to draw', () => {
    expect(renderPicture(row(8, []), PLAIN)).toEqual(['base:allocation: the device is empty']);
  });
});
