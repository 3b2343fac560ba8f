import { execFileSync } from 'node:child_process';
import type { Random } from '../unit/bitmap/random.js';

/**
 * Random writes, zeroes and discards by qemu-io, at least one of them a write.
 *
 * @param longest in sectors
 */
export function scribble(path: string, size: number, random: Random, longest = 2000): void {
  const middle = Math.floor(size / 1024) * 512;
  const commands = ['-c', `write -P 5 ${middle} 100k`];
  for (let i = 0; i < 12; i++) {
    const offset = random.between(0, size / 512 - 1) * 512;
    const length = Math.min(size - offset, random.between(1, longest) * 512);
    const kind = random.pick([`write -P ${random.between(1, 255)}`, 'write -z', 'discard']);
    commands.push('-c', `${kind} ${offset} ${length}`);
  }
  execFileSync('qemu-io', ['-f', 'qcow2', ...commands, path], { stdio: 'ignore' });
}
