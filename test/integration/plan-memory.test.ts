/** A plan of very many extents stays small; measured in a process of its own. */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';

const MOST_MIB = 200;

/** Plans a disk of a million extents, and prints the most memory that the process ever had, in MiB. */
const SCRIPT = `
import { Device, openDevice, plan } from 'lacuna';
const [length, step, incremental] = process.argv.slice(1).map(Number);
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
  const [inside, outside] = context === 'base:allocation' ? [1, 6] : [1, 0];
  while (list.end < offset + asked && list.count < BATCH) {
    const at = list.end % step;
    if (at < length) list.push(length - at, inside);
    else list.push(step - at, outside);
  }
  return list;
}
const source = new Device(driver);
const made = await plan({ source, ...(incremental && { context: 'qemu:dirty-bitmap:b' }) });
console.log(JSON.stringify({
  extents: made.data.dirtyBytes / length,
  mib: process.resourceUsage().maxRSS / 1024,
}));
`;

test.each([
  ['of a full copy, alternating', 64 * 1024, 128 * 1024, 0],
  ['of a full copy, far apart', 4096, 64 * 1024 * 1024, 0],
  ['of an increment, alternating', 64 * 1024, 128 * 1024, 1],
])(
  'a plan of a million extents %s, takes less than 200 MiB',
  (_name, length, step, incremental) => {
    const args = ['--input-type=module', '-e', SCRIPT, `${length}`, `${step}`, `${incremental}`];
    const env = {
      ...process.env,
      EXTENT_MODULE: new URL('../../dist/extent/index.js', import.meta.url).href,
    };
    const options = { env, cwd: process.cwd(), encoding: 'utf8' } as const;
    const { extents, mib } = JSON.parse(execFileSync(process.execPath, args, options));
    expect(extents).toBe(1_000_000);
    expect(mib).toBeLessThan(MOST_MIB);
  },
  60_000,
);
