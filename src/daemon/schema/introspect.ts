/** What `query-qmp-schema` answers; see docs/devel/qapi-code-gen of QEMU. */
import type { Command, EventShape } from './command.js';
import type { Members, Shape, Union } from './types.js';

/** An entity of the schema. */
export type SchemaInfo = { readonly name: string; readonly 'meta-type': string } & Readonly<
  Record<string, unknown>
>;

const BUILT_IN: Readonly<Record<string, readonly [name: string, json: string]>> = {
  text: ['str', 'string'],
  flag: ['bool', 'boolean'],
  integer: ['int', 'int'],
  number: ['number', 'number'],
  nothing: ['null', 'null'],
  anything: ['any', 'value'],
};

/** Everything there is, with the names of types masked by numbers, as clients must not rely on those. */
export function introspect(
  commands: readonly Command<never>[],
  events: readonly EventShape[],
): SchemaInfo[] {
  const schema = new Introspection();
  const entities = [
    ...commands.map(({ name, args, answer }) => ({
      name,
      'meta-type': 'command',
      'arg-type': args.kind === 'union' ? schema.typeOf(args) : schema.arguments(args.members),
      'ret-type': answer === undefined ? schema.arguments({}) : schema.typeOf(answer),
    })),
    ...events.map(({ name, members }) => ({
      name,
      'meta-type': 'event',
      'arg-type': schema.arguments(members),
    })),
  ];
  return [...entities, ...schema.types];
}

class Introspection {
  readonly types: SchemaInfo[] = [];
  /** The names that types have got. Those of one name in the source are one type. */
  readonly #named = new Map<string, string>();
  #count = 0;

  arguments(members: Members): string {
    const isEmpty = Object.keys(members).length === 0;
    if (isEmpty) return this.#once('empty', () => ({ 'meta-type': 'object', members: [] }));
    const name = this.#next();
    this.#add(name, { 'meta-type': 'object', members: this.#members(members) });
    return name;
  }

  typeOf(shape: Shape): string {
    const builtIn = BUILT_IN[shape.kind];
    if (builtIn !== undefined) return this.#builtIn(...builtIn);
    switch (shape.kind) {
      case 'list': {
        const item = this.typeOf(shape.item);
        const name = `[${item}]`;
        return this.#once(name, () => ({ 'meta-type': 'array', 'element-type': item }), name);
      }
      case 'word': {
        const members = shape.words.map((name) => ({ name }));
        return this.#once(shape.name, () => ({
          'meta-type': 'enum',
          members,
          values: shape.words,
        }));
      }
      case 'struct':
        return this.#once(shape.name ?? this.#next(), () => ({
          'meta-type': 'object',
          members: this.#members(shape.members),
        }));
      case 'union':
        return this.#once(shape.name, () => this.#unionOf(shape));
      case 'alternate':
        return this.#once(shape.name, () => ({
          'meta-type': 'alternate',
          members: shape.choices().map((choice) => ({ type: this.typeOf(choice) })),
        }));
      default:
        throw new TypeError(`a type of the kind ${shape.kind} has no name`);
    }
  }

  #unionOf({ base, tag, branches }: Union): Omit<SchemaInfo, 'name'> {
    return {
      'meta-type': 'object',
      members: this.#members(base),
      tag,
      variants: Object.entries(branches()).map(([value, own]) => ({
        case: value,
        type: this.arguments(own),
      })),
    };
  }

  #members(members: Members): object[] {
    return Object.entries(members).map(([name, { shape, isOptional }]) => ({
      name,
      // Whatever it is by default: that it is there at all says that it may be left out.
      ...(isOptional && { default: null }),
      type: this.typeOf(shape),
    }));
  }

  #builtIn(name: string, json: string): string {
    return this.#once(name, () => ({ 'meta-type': 'builtin', 'json-type': json }), name);
  }

  /** A type may have itself inside, so it has its name before it is known what it is. */
  #once(key: string, make: () => Omit<SchemaInfo, 'name'>, name?: string): string {
    const known = this.#named.get(key);
    if (known !== undefined) return known;
    const given = name ?? this.#next();
    this.#named.set(key, given);
    this.#add(given, make());
    return given;
  }

  #add(name: string, info: Omit<SchemaInfo, 'name'>): void {
    this.types.push({ name, ...info } as SchemaInfo);
  }

  #next(): string {
    return String(this.#count++);
  }
}
