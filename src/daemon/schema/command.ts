import { check } from './check.js';
import {
  type Fields,
  type Members,
  membersOf,
  type Shape,
  type Struct,
  type Type,
  type Union,
  type ValuesOf,
} from './types.js';

/** A command as all of the daemon sees it, but for who wrote it. */
export interface Command<Context> {
  readonly name: string;
  /** What it does, in a sentence or two. */
  readonly about: string;
  /** Whether QEMU has a command of this name that does the same. */
  readonly isOfQemu: boolean;
  /** What QEMU does otherwise, where that matters to clients. */
  readonly differs: string | undefined;
  readonly args: Struct | Union;
  /** Undefined where there is nothing to answer. */
  readonly answer: Shape | undefined;
  /** Checks the arguments, and carries it out. @throws QmpCommandError and what carrying it out throws */
  run(context: Context, args: object): Promise<unknown>;
}

/** How a command is said. */
export interface CommandOptions<Context, F extends Fields, R, B> {
  readonly name: string;
  readonly about: string;
  readonly args?: F;
  /** In place of `args`: a union whose members are the arguments. */
  readonly boxed?: Type<B>;
  readonly returns?: Type<R>;
  /** QEMU has none of that name, or none that does the same. Default false. */
  readonly isOurs?: boolean;
  readonly differs?: string;
  readonly run: (context: Context, args: Arguments<F, B>) => Promise<R> | R;
}

type Arguments<F, B> = unknown extends B ? ValuesOf<F> : B;

/** An event that is told. */
export interface EventShape {
  readonly name: string;
  readonly about: string;
  readonly members: Members;
}

/** Makes the commands of a context. */
export function command<Context, const F extends Fields, R, B = unknown>(
  options: CommandOptions<Context, F, R, B>,
): Command<Context> {
  const { name, about, returns, isOurs = false, differs, run } = options;
  const args: Type<unknown> = options.boxed ?? {
    shape: { kind: 'struct', name: undefined, members: membersOf(options.args ?? {}) },
  };
  return {
    name,
    about,
    isOfQemu: !isOurs,
    differs,
    args: args.shape as Struct | Union,
    answer: returns?.shape,
    run: async (context, given) => await run(context, check(args, given) as Arguments<F, B>),
  };
}

/** Says what belongs to an event. */
export function event(name: string, about: string, fields: Fields): EventShape {
  return { name, about, members: membersOf(fields) };
}
