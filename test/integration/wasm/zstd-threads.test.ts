/** What is compressed in threads fails, and waits for nobody, where a thread cannot be loaded. */
import { spawnSync } from 'node:child_process';
import { cpSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { temporaryFolder } from '../../support/temporary-folder.js';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

const top = temporaryFolder();

const PROGRAM = `
  import { copyFileSync } from 'node:fs';
  import { zstdInThreads } from './dist/wasm/zstd-threads.js';
  const compress = async () => {
    const frame = await zstdInThreads(new Uint8Array(65536), 3).catch(({ code }) => code);
    console.log(typeof frame === 'string' ? frame : Buffer.from(frame.subarray(0, 4)).toString('hex'));
  };
  await Promise.all([compress(), compress()]);
  copyFileSync('whole.js', 'dist/wasm/zstd-worker.js');
  await compress();`;

test.each([
  ['fails while it is loaded', 'throw new Error("broken");'],
  ['is not the program that it should be', ''],
])(
  'a thread that %s fails all that waits for it, and the next ones are tried again',
  (_title, text) => {
    const folder = join(top, String(text.length));
    const isNeeded = (name: string) => !/\.map$|\.d\.ts$|dist\/parts$/.test(name);
    cpSync(join(ROOT, 'dist'), join(folder, 'dist'), { recursive: true, filter: isNeeded });
    cpSync(join(ROOT, 'package.json'), join(folder, 'package.json'));
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
    cpSync(join(folder, 'dist/wasm/zstd-worker.js'), join(folder, 'whole.js'));
    writeFileSync(join(folder, 'dist/wasm/zstd-worker.js'), text);
    writeFileSync(join(folder, 'program.mjs'), PROGRAM);
    const { stdout, stderr } = spawnSync(process.execPath, ['program.mjs'], {
      ...{ cwd: folder, encoding: 'utf8', timeout: 120_000 },
    });
    expect(stderr).toBe('');
    expect(stdout.trim().split('\n')).toEqual(['ERR_WORKER_LOST', 'ERR_WORKER_LOST', '28b52ffd']);
  },
);
