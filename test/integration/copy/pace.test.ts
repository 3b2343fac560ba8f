/** What the requests of a copy are like, as the server saw them. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CopyOptions, copy } from 'lacuna';
import { describe, expect, it } from 'vitest';
import { usePeers } from '../../support/peers.js';

const KIB = 1024;
const MIB = 1024 * KIB;

describe('a copy from a server that answers late', () => {
  const peers = usePeers();

  /** Sizes of the reads, in the order in which they came. */
  async function readsOf(
    filters: readonly string[],
    parameters: readonly string[],
    options: Partial<CopyOptions> = {},
    delayMs = 1,
  ): Promise<number[]> {
    const log = join(await peers.folder(), 'requests.log');
    const disk = ['pattern', '320M', `logfile=${log}`, `rdelay=${delayMs}ms`, ...parameters];
    const all = ['log', ...filters, 'delay'].map((name) => `--filter=${name}`);
    const { uri } = await peers.nbdkit([...all, ...disk]);
    const report = await copy({ source: uri, target: 'null:', ...options });
    expect(report.movedBytes).toBe(320 * MIB);
    const reads = (await readFile(log, 'utf8')).matchAll(/ Read .*offset=\S+ count=(0x[0-9a-f]+)/g);
    const sizes = [...reads].map(([, count]) => Number(count));
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(320 * MIB);
    return sizes;
  }

  /** As `readsOf`, again where a machine that was busy with something else has hidden what helps. */
  async function longest(
    wanted: number,
    ...[filters, parameters]: [readonly string[], readonly string[]]
  ): Promise<number[]> {
    for (let attempt = 1; ; attempt++) {
      // So long that the time a busy machine takes hardly counts beside it.
      const sizes = await readsOf(filters, parameters, {}, 200);
      if (Math.max(...sizes) === wanted || attempt === 5) return sizes;
    }
  }

  it('begins with short requests, and makes them longer', async () => {
    const sizes = await longest(2 * MIB, [], []);
    expect(new Set(sizes.slice(0, 8))).toEqual(new Set([512 * KIB]));
    expect(Math.max(...sizes)).toBe(2 * MIB);
  });

  it('keeps to what the server takes', async () => {
    const policy = ['blocksize-maximum=1M', 'blocksize-error-policy=error'];
    const sizes = await longest(MIB, ['blocksize-policy'], policy);
    expect(Math.max(...sizes)).toBe(MIB);
  });

  it('keeps to the size that it was given', async () => {
    const sizes = await readsOf([], [], { requestSize: 256 * KIB });
    expect(new Set(sizes)).toEqual(new Set([256 * KIB]));
  });
});
