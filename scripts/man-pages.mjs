// Writes a man page for each command into dist/man, from what its help says; npm installs them with the command.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { run } from '../dist/cli/run.js';

/** What the command prints. */
async function printed(argv) {
  let text = '';
  const print = async (more) => {
    text += more;
  };
  const shell = {
    print,
    note: (line) => process.stderr.write(line),
    noteLines: (lines) => process.stderr.write(lines),
    signal: new AbortController().signal,
    exitCode: 0,
    failureCode: 1,
  };
  const code = await run(argv, shell);
  if (code !== 0) throw new Error(`lacuna ${argv.join(' ')} exits with ${code}`);
  return text;
}

/** The commands that a page lists, by their whole names. */
function commandsIn(page) {
  const [, list = ''] = /^\.SH COMMANDS\n([\s\S]*?)(?=^\.SH )/m.exec(page) ?? [];
  return [...list.matchAll(/^\.B lacuna (.*)$/gm)].map(([, names]) => names.split(' '));
}

async function write(names) {
  const page = await printed(['help', '--man', ...names]);
  await writeFile(`dist/man/${['lacuna', ...names].join('-')}.1`, page);
  for (const below of commandsIn(page)) await write(below);
}

await rm('dist/man', { recursive: true, force: true });
await mkdir('dist/man', { recursive: true });
await write([]);
