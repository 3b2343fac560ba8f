import { execFileSync } from 'node:child_process';
import type { Random } from '../unit/bitmap/random.js';

/** Random writes, zeroes and discards by qemu-io, at least one of them a write. */
export function scribble(path: string, size: number, random: Random): void {
  const commands = ['-c', 'write -P 5 3M 100k'];
  for (let i = 0; i < 12; i++) {
    const offset = random.between(0, size / 512 - 1) * 512;
    const length = Math.min(size - offset, random.between(1, 2000) * 512);
    const kind = random.pick([`write -P ${random.between(1, 255)}`, 'write -z', 'discard']);
    commands.push('-c', `${kind} ${offset} ${length}`);
  }
  execFileSync('qemu-io', ['-f', 'qcow2', ...commands, path], { stdio: 'ignore' });
}
