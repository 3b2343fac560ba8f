import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A block device that stores its bytes in a file. */
export interface LoopDevice {
  readonly path: string;
  readonly file: string;
  detach(): void;
}

/** Attaches a loop device; undefined where this user, or this system, may not have one. */
export function attachLoopDevice(size: number, sector: number): LoopDevice | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'lacuna-loop-'));
  const file = join(folder, 'disk.raw');
  writeFileSync(file, '');
  truncateSync(file, size);
  try {
    const args = ['--find', '--show', '--sector-size', `${sector}`, file];
    const path = execFileSync('losetup', args, { stdio: ['ignore', 'pipe', 'ignore'] });
    return {
      path: path.toString().trim(),
      file,
      detach: () => detach(path.toString().trim(), folder),
    };
  } catch {
    rmSync(folder, { recursive: true });
    return undefined;
  }
}

function detach(path: string, folder: string): void {
  execFileSync('losetup', ['--detach', path]);
  rmSync(folder, { recursive: true });
}
