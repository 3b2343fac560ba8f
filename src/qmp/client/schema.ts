import { LacunaError } from '../../errors/index.js';
import { list, members, optional, type Reader, text } from '../wire/index.js';

/** Commands that are needed, each with the arguments that are. Members of arguments follow a dot: `server.type`. */
export type QmpNeeds = Readonly<Record<string, readonly string[]>>;

interface Entry {
  readonly name: string;
  readonly 'meta-type': string;
  readonly 'arg-type'?: string | undefined;
  readonly 'element-type'?: string | undefined;
  readonly members?: Member[] | undefined;
  readonly variants?: Variant[] | undefined;
  readonly values?: string[] | undefined;
}

interface Member {
  readonly name?: string | undefined;
  /** Absent for the values of an enumeration, which newer versions list like members. */
  readonly type?: string | undefined;
}

interface Variant {
  readonly case: string;
  readonly type: string;
}

const ENTRY: Reader<Entry> = members<Entry>({
  name: text,
  'meta-type': text,
  'arg-type': optional(text),
  'element-type': optional(text),
  members: optional(list(members<Member>({ name: optional(text), type: optional(text) }))),
  variants: optional(list(variant)),
  values: optional(list(text)),
});

/** Of alternates, variants have no case. */
function variant(value: unknown, place: string): Variant {
  const read = members<Partial<Variant>>({ case: optional(text), type: optional(text) })(
    value,
    place,
  );
  return { case: read.case ?? '', type: read.type ?? '' };
}

/** Arguments may lie in one another; a schema that refers to itself must not make a look-up loop forever. */
const MOST_STEPS = 16;

/** What a QEMU says that it has (query-qmp-schema). */
export class QmpSchema {
  readonly #entries = new Map<string, Entry>();
  readonly #commands = new Map<string, Entry>();

  /**
   * @internal
   * @throws LacunaError ERR_QMP_PROTOCOL
   */
  constructor(answer: readonly unknown[]) {
    for (const [index, value] of answer.entries()) {
      const entry = ENTRY(value, `query-qmp-schema[${index}]`);
      const isCommand = entry['meta-type'] === 'command';
      (isCommand ? this.#commands : this.#entries).set(entry.name, entry);
    }
  }

  /** Whether there is a command, and all of these arguments of it. */
  has(command: string, ...args: string[]): boolean {
    return this.missing({ [command]: args }).length === 0;
  }

  /**
   * What is missing of what is needed, as it stands in QEMU's documentation: `blockdev-backup` or
   * `blockdev-backup: filter-node-name`.
   */
  missing(needs: QmpNeeds): string[] {
    return Object.entries(needs).flatMap(([name, args]) => {
      const command = this.#commands.get(name);
      if (command === undefined) return [name];
      return args
        .filter((path) => !this.#hasArgument(command, path.split('.')))
        .map((path) => `${name}: ${path}`);
    });
  }

  /**
   * @internal
   * @throws LacunaError ERR_QMP_UNSUPPORTED that names what is missing.
   */
  require(device: string, version: string, needs: QmpNeeds): void {
    const missing = this.missing(needs);
    if (missing.length === 0) return;
    throw new LacunaError(
      'ERR_QMP_UNSUPPORTED',
      `${device}: QEMU ${version} does not have ${missing.join(', ')}, which is needed here; nothing was changed. Use a newer QEMU`,
      { device },
    );
  }

  #hasArgument(command: Entry, path: readonly string[]): boolean {
    let types = [command['arg-type'] ?? ''];
    for (const name of path.slice(0, MOST_STEPS)) {
      types = types.flatMap((type) => this.#step(type, name));
    }
    return types.length > 0;
  }

  /** The types of a member, or of a variant or value, of this name. */
  #step(type: string, name: string): string[] {
    const entry = this.#elementOf(type);
    if (entry === undefined) return [];
    if (entry.values?.includes(name)) return [''];
    const found = entry.members?.filter((member) => member.name === name) ?? [];
    const cases = entry.variants?.filter((one) => one.case === name) ?? [];
    const inVariants = (entry.variants ?? []).flatMap((one) =>
      one.case === name || one.type === type ? [] : this.#membersOf(one.type, name),
    );
    return [
      ...found.map((member) => member.type ?? ''),
      ...cases.map((one) => one.type),
      ...inVariants,
    ];
  }

  /** What a list of lists holds in the end. */
  #elementOf(type: string): Entry | undefined {
    let entry = this.#entries.get(type);
    for (let steps = 0; steps < MOST_STEPS; steps++) {
      if (entry?.['element-type'] === undefined) return entry;
      entry = this.#entries.get(entry['element-type']);
    }
    return undefined;
  }

  #membersOf(type: string, name: string): string[] {
    const found = this.#entries.get(type)?.members?.filter((member) => member.name === name) ?? [];
    return found.map((member) => member.type ?? '');
  }
}
