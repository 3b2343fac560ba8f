/** A plan of very many extents stays small; measured in a process of its own. */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';

const MOST_MIB = 200;

/**
 * Plans a disk of a million extents, of which every so many-th is zero, and prints the most memory that the
 * process ever had, in MiB. At random, extents are anywhere in their step.
 */
const SCRIPT = `
import { Device, openDevice, plan } from 'lacuna';
const { length, step, incremental, zeroEvery, random } = JSON.parse(process.argv[1]);
const EXTENTS = 1_000_000;
const BATCH = 8192;
const blank = await openDevice('driver=memory,size=1M');
const driver = {
  name: 'scattered',
  size: EXTENTS * step,
  limits: blank.limits,
  capabilities: { ...blank.capabilities, write: false, contexts: ['base:allocation', 'qemu:dirty-bitmap:b'] },
  read: async () => {},
  extents: async (offset, asked, contexts) => contexts.map((context) => answer(offset, asked, context)),
  close: async () => {},
};
const { ExtentList } = await import(process.env.EXTENT_MODULE);
function answer(offset, asked, context) {
  const list = new ExtentList(offset);
  const isAllocation = context === 'base:allocation';
  while (list.end < offset + asked && list.count < BATCH) {
    const index = Math.floor(list.end / step);
    const from = random ? (Math.imul(index, 2654435761) >>> 0) % ((step - length) / 512) * 512 : 0;
    const at = list.end - index * step;
    const isZero = isAllocation && zeroEvery > 0 && index % zeroEvery === 0;
    if (at < from) list.push(from - at, isAllocation ? 6 : 0);
    else if (at < from + length) list.push(from + length - at, isZero ? 2 : 1);
    else list.push(step - at, isAllocation ? 6 : 0);
  }
  return list;
}
const source = new Device(driver);
const made = await plan({ source, ...(incremental && { context: 'qemu:dirty-bitmap:b' }) });
console.log(JSON.stringify({
  extents: (made.data.dirtyBytes + (incremental ? made.zero.dirtyBytes : 0)) / length,
  mib: process.resourceUsage().maxRSS / 1024,
}));
`;

interface Layout {
  length: number;
  step: number;
  incremental?: boolean;
  zeroEvery?: number;
  random?: boolean;
}

const KiB = 1024;
const MiB = 1024 * KiB;

test.each<[string, Layout]>([
  ['of a full copy, alternating', { length: 64 * KiB, step: 128 * KiB }],
  // As many runs as one leaf of the bitmap can have and waste the most.
  ['of a full copy, three in a leaf', { length: 64 * KiB, step: 640 * KiB }],
  ['of a full copy, seventeen in a leaf', { length: 4 * KiB, step: 120 * KiB }],
  ['of a full copy, at random', { length: 4 * KiB, step: 768 * KiB, random: true }],
  ['of a full copy, far apart', { length: 4 * KiB, step: 64 * MiB }],
  ['of a full copy, very far apart', { length: 64 * KiB, step: 1024 * MiB }],
  ['of an increment, alternating', { length: 64 * KiB, step: 128 * KiB, incremental: true }],
  [
    'of an increment, three in a leaf, some of them zero',
    { length: 64 * KiB, step: 640 * KiB, incremental: true, zeroEvery: 3 },
  ],
  // Every second one, so that what is dirty, data and zero has nodes of its own everywhere.
  [
    'of an increment, far apart, half of them zero',
    { length: 4 * KiB, step: 64 * MiB, incremental: true, zeroEvery: 2 },
  ],
])('a plan of a million extents %s, takes less than 200 MiB', (_name, layout) => {
  // Otherwise how much garbage there is at most depends on when other threads of the collector get their turn.
  const args = [
    '--single-threaded-gc',
    '--input-type=module',
    '-e',
    SCRIPT,
    JSON.stringify(layout),
  ];
  const env = {
    ...process.env,
    EXTENT_MODULE: new URL('../../../dist/extent/index.js', import.meta.url).href,
  };
  const options = { env, cwd: process.cwd(), encoding: 'utf8' } as const;
  const { extents, mib } = JSON.parse(execFileSync(process.execPath, args, options));
  expect(extents).toBe(1_000_000);
  expect(mib).toBeLessThan(MOST_MIB);
});
