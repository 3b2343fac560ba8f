/** docs/qmp.md, made of the schema of the daemon. */
import { EVENTS, GROUPS } from '#dist/daemon/commands/index.js';
import type { Command, Members, Shape } from '#dist/daemon/schema/index.js';

const HEAD = `# The QMP commands of the daemon

<!-- Made from the schema in src/daemon: change that, and run "npx vitest run -u test/unit/daemon/qmp-page.test.ts". -->

\`lacuna daemon\` speaks [QMP](https://www.qemu.org/docs/master/interop/qmp-spec.html), as QEMU and qemu-storage-daemon do.
[daemon.md](daemon.md) says how it is started, and where it differs in general. Commands that QEMU does not have are marked **ours**.
What is not listed here is not there: it is answered with the class \`CommandNotFound\`. An argument in *italics* may be left out.
\`query-qmp-schema\` tells all of this to programs.

`;

/** The whole page. */
export function qmpPage(): string {
  const types = new Types();
  const groups = Object.entries(GROUPS as Record<string, readonly Command<never>[]>).map(
    ([title, commands]) =>
      `## ${title}\n\n${commands.map((one) => commandText(one, types)).join('\n')}`,
  );
  const events = (EVENTS as unknown as { name: string; about: string; members: Members }[]).map(
    ({ name, about, members }) => `### \`${name}\`\n\n${about}\n\n${table('data', members, types)}`,
  );
  return [
    HEAD,
    groups.join('\n'),
    `\n## Events\n\n${events.join('\n')}`,
    `\n## Types\n\n${types.text()}`,
  ].join('');
}

function commandText(
  { name, about, isOfQemu, differs, args, answer }: Command<never>,
  types: Types,
) {
  const parts = [
    `### \`${name}\`${isOfQemu ? '' : ' (**ours**)'}\n\n${about}\n`,
    ...(differs === undefined ? [] : [`Otherwise than in QEMU: ${differs}\n`]),
  ];
  if (args.kind === 'union') parts.push(`Arguments: the members of ${types.name(args)}.\n`);
  else if (Object.keys(args.members).length > 0) parts.push(table('argument', args.members, types));
  if (answer !== undefined) parts.push(`Answer: ${types.name(answer)}\n`);
  return parts.join('\n');
}

function table(what: string, members: Members, types: Types): string {
  const rows = Object.entries(members).map(([name, { shape, isOptional, about = '' }]) => {
    const shown = isOptional ? `*\`${name}\`*` : `\`${name}\``;
    return `| ${shown} | ${types.name(shape)} | ${about.replaceAll('|', '\\|')} |`;
  });
  return `| ${what} | type | meaning |\n| --- | --- | --- |\n${rows.join('\n')}\n`;
}

/** The types that have names, in the order in which they are met. */
class Types {
  readonly #met = new Map<string, Shape>();

  name(shape: Shape): string {
    switch (shape.kind) {
      case 'list':
        return `list of ${this.name(shape.item)}`;
      case 'integer':
        return shape.isSize ? 'bytes' : 'whole number';
      case 'anything':
        return 'JSON';
      case 'nothing':
        return '`null`';
      case 'word':
      case 'struct':
      case 'union':
      case 'alternate': {
        const name = shape.name ?? 'object';
        this.#met.set(name, shape);
        return `[${name}](#${name.toLowerCase()})`;
      }
      default:
        return shape.kind;
    }
  }

  text(): string {
    const parts: [string, string][] = [];
    // What is met meanwhile comes behind.
    for (const [name, shape] of this.#met)
      parts.push([name, `### ${name}\n\n${this.#body(shape)}`]);
    return parts
      .sort(([one], [other]) => (one < other ? -1 : 1))
      .map(([, text]) => text)
      .join('\n');
  }

  #body(shape: Shape): string {
    switch (shape.kind) {
      case 'word':
        return `${shape.words.map((one) => `\`${one}\``).join(', ')}\n`;
      case 'struct':
        return table('member', shape.members, this);
      case 'alternate':
        return `${shape
          .choices()
          .map((one) => this.name(one))
          .join(', or ')}\n`;
      case 'union': {
        const own = Object.entries(shape.branches()).filter(
          ([, members]) => Object.keys(members).length > 0,
        );
        const branches = own.map(
          ([value, members]) =>
            `With the ${shape.tag} \`${value}\`:\n\n${table('member', members, this)}`,
        );
        return [table('member', shape.base, this), ...branches].join('\n');
      }
      default:
        return '';
    }
  }
}
