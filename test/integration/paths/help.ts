/** What the help says that commands take. */
import { runHere } from '../../support/run-here.js';

/** Every argument and every value of an option: `copy <source>`, `copy --resume <file>`. */
export async function valuesOfAll(): Promise<string[]> {
  return valuesOf([]);
}

async function valuesOf(command: readonly string[]): Promise<string[]> {
  const { stdout } = await runHere([...command, '--help']);
  const name = command.join(' ');
  const [, usage = ''] = /^Usage: lacuna ?(.*(?:\n .+)*)/.exec(stdout) ?? [];
  const values = usage.match(/<[^>]+>|\[(?!options\]|command\])[^\]]+\]/g) ?? [];
  const options = stdout.matchAll(/^ +(?:-\w, )?(--[\w-]+) (<\S+?>+|\[\S+\])/gm);
  const own = [
    ...values.map((value) => `${name} ${value}`),
    ...[...options].map(([, option, value]) => `${name} ${option} ${value}`),
  ];
  const [, commands = ''] = /^Commands:\n((?: .*\n)+)/m.exec(stdout) ?? [];
  const below = [...commands.matchAll(/^ {2}(?!help)(\S+)/gm)].map(([, each]) => each);
  const all: string[] = own;
  for (const each of below) all.push(...(await valuesOf([...command, each])));
  return all;
}
