import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const VARIANTS = ['simd', 'scalar'];

/** Before the unit tests: compiles the WASM kernels where that was not done since their sources changed. */
export default function compileKernels(): void {
  const sources = readdirSync(join(ROOT, 'assembly')).map((name) => join(ROOT, 'assembly', name));
  const newest = Math.max(...[...sources, join(ROOT, 'asconfig.json')].map(timeOf));
  for (const variant of VARIANTS) {
    if (timeOf(join(ROOT, `dist/wasm/kernels.${variant}.wasm`)) > newest) continue;
    const asc = join(ROOT, 'node_modules/assemblyscript/bin/asc.js');
    execFileSync(process.execPath, [asc, '--target', variant], { cwd: ROOT, stdio: 'inherit' });
  }
}

function timeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}
