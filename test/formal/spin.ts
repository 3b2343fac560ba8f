import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** What an exhaustive search of a model said. */
export interface Verdict {
  errors: number;
  states: number;
  /** The first thing that went wrong; empty when nothing did. */
  reason: string;
}

/**
 * Searches every interleaving of a model in this folder, with some names defined.
 *
 * @throws Error when a program is missing, the model is not valid, or the search was cut short.
 */
export async function explore(model: string, defines: readonly string[]): Promise<Verdict> {
  const cwd = await mkdtemp(join(tmpdir(), 'lacuna-spin-'));
  try {
    const flags = defines.map((define) => `-D${define}`);
    const source = fileURLToPath(new URL(`${model}.pml`, import.meta.url));
    await program('spin', ['-a', ...flags, source], cwd);
    await program('gcc', ['-w', '-DSAFETY', '-o', 'search', 'pan.c'], cwd);
    return verdict(await program(join(cwd, 'search'), ['-m1000000'], cwd));
  } finally {
    await rm(cwd, { recursive: true });
  }
}

async function program(name: string, args: string[], cwd: string): Promise<string> {
  try {
    return (await run(name, args, { cwd })).stdout;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(
      `${name} is not installed. The models are checked with spin, and what it makes is compiled ` +
        'with gcc: apt-get install spin build-essential',
    );
  }
}

function verdict(output: string): Verdict {
  const errors = /errors: (\d+)/.exec(output);
  const states = /(\d+) states, stored/.exec(output);
  if (errors === null || states === null || /max search depth too small/.test(output)) {
    throw new Error(`the search did not come to its end:\n${output}`);
  }
  return {
    errors: Number(errors[1]),
    states: Number(states[1]),
    reason: /^pan:1: (.*) \(at depth/m.exec(output)?.[1] ?? '',
  };
}
