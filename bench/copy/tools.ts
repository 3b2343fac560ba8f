/** The tools that a user would take, each started as its users start it. */
import { rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Contender, exec } from '../support/bench.js';

const LACUNA = new URL('../../dist/cli/main.js', import.meta.url).pathname;

/** A program and its arguments. */
export type Command = readonly [string, ...string[]];

/** The command with any of its verbs. */
export const ours = (...args: string[]): Command => [process.execPath, LACUNA, ...args];

export const lacuna = (...args: string[]): Command => ours('copy', ...args);

export const nbdcopy = (...args: string[]): Command => ['nbdcopy', ...args];

/** `qemu-img convert` from a raw disk to another. */
export const convert = (source: string, target: string, ...flags: string[]): Command => {
  return ['qemu-img', 'convert', ...flags, '-f', 'raw', '-O', 'raw', source, target];
};

/** `qemu-img convert` to a target that forgets what it is given. */
export const convertToNull = (source: string, size: number): Command => {
  const target = `driver=raw,file.driver=null-co,file.size=${size}`;
  const flags = ['-n', '-W', '-m', '16', '--target-image-opts', '-f', 'raw'];
  return ['qemu-img', 'convert', ...flags, source, target];
};

/** Runs a command; tells the processor time of it and of all that it started, in milliseconds. */
export async function measured(command: Command, cwd?: string): Promise<number> {
  const script = 'TIMEFORMAT="cpu %U %S"; time "$@"';
  const { stderr } = await exec('bash', ['-c', script, 'bash', ...command], { cwd });
  const [, user, system] = /cpu ([0-9.]+) ([0-9.]+)\s*$/.exec(stderr) ?? [];
  return (Number(user) + Number(system)) * 1000;
}

/** A contender whose output is not looked at, because nothing keeps it. */
export function timed(name: string, [program, ...args]: Command): Contender {
  return { name, run: async () => void (await exec(program, args)) };
}

/** A contender that writes a file, which is compared with the source by a tool that is not ours. */
export function makesFile(
  name: string,
  disk: {
    folder: string;
    source: string;
    /** What is inside source and target; default raw. */
    format?: string;
    targetFormat?: string;
    /** Bytes of an empty file that is there beforehand; otherwise nothing is. */
    target?: number;
  },
  command: (target: string) => Command,
): Contender {
  const { format = 'raw', targetFormat = 'raw' } = disk;
  const target = join(disk.folder, `${name.replaceAll(/\W+/g, '-')}.${targetFormat}`);
  const [program, ...args] = command(target);
  const clear = () => rm(target, { force: true });
  return {
    name,
    prepare: async () => {
      await clear();
      if (disk.target === undefined) return;
      await writeFile(target, '');
      await truncate(target, disk.target);
    },
    run: async () => void (await exec(program, args)),
    verify: async () => {
      await exec('qemu-img', ['compare', '-f', format, '-F', targetFormat, disk.source, target]);
    },
    clear,
  };
}
