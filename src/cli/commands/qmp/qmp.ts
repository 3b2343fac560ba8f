import type { Command } from 'commander';
import type { Shell } from '../../shell/index.js';

interface QmpFlags {
  timeout: string;
}

const EXAMPLES = `
Examples:
  lacuna qmp /run/daemon.qmp query-jobs
  lacuna qmp /run/daemon.qmp block-dirty-bitmap-add node=disk name=nightly persistent=true
  lacuna qmp /run/vm.qmp blockdev-backup '{"job-id": "j", "device": "disk", "target": "copy", "sync": "full"}'

Arguments are one JSON object, or NAME=VALUE, where a VALUE that is JSON is taken as such, and all else as text; write
name='"5"' for the text 5. The answer is printed as JSON. A command that is refused exits with 1.`;

/** Tells commander what `lacuna qmp` takes, and what it does. */
export function registerQmp(command: Command, shell: Shell): void {
  command
    .description('Sends a command over QMP, and prints the answer.')
    .argument('<socket>', 'the Unix socket of a monitor')
    .argument('<command>', 'such as query-jobs')
    .argument('[arguments...]', 'a JSON object, or NAME=VALUE')
    .option('--timeout <seconds>', 'give up when there is no answer for so long', '60')
    .addHelpText('after', EXAMPLES)
    .action((path: string, name: string, args: string[], flags: QmpFlags) =>
      qmpCommand({ path, name, args: argumentsOf(args), timeoutMs: timeoutOf(flags) }, shell),
    );
}

interface Asked {
  readonly path: string;
  readonly name: string;
  readonly args: object;
  readonly timeoutMs: number;
}

async function qmpCommand({ path, name, args, timeoutMs }: Asked, shell: Shell): Promise<void> {
  const { Monitor } = await import('../../../qmp/index.js');
  const { signal } = shell;
  await using monitor = await Monitor.connect({ path }, { signal });
  const answer = await monitor.execute(name, args, { timeoutMs, signal });
  await shell.print(`${JSON.stringify(answer, undefined, 2)}\n`);
}

function argumentsOf(args: readonly string[]): object {
  if (args.length === 1 && args[0].trimStart().startsWith('{')) return objectOf(args[0]);
  const pairs = args.map((one): [string, unknown] => {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(one) ?? [];
    if (name === undefined) {
      throw new TypeError(`"${one}" is no argument: write NAME=VALUE, or one JSON object`);
    }
    return [name, jsonOrText(value)];
  });
  const names = pairs.map(([name]) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new TypeError(`${twice} is said twice`);
  return Object.fromEntries(pairs);
}

function objectOf(text: string): object {
  try {
    return JSON.parse(text) as object;
  } catch (cause) {
    throw new TypeError(`the arguments are not valid JSON: ${(cause as Error).message}`, { cause });
  }
}

function jsonOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function timeoutOf({ timeout }: QmpFlags): number {
  const seconds = Number(timeout);
  if (seconds > 0 && seconds <= 2_000_000) return seconds * 1000;
  throw new TypeError(`--timeout must be a number of seconds above 0, not ${timeout}`);
}
