import { Context, DIRTY, isDirtyContext, Status } from '../../extent/index.js';

/**
 * What the flags of a metadata context mean to a person. The first kind is the one that a picture is
 * about: how much of a cell it fills is what the shade tells.
 */
export interface ContextKinds {
  readonly context: string;
  /** The names of the kinds; a range is of exactly one. */
  readonly names: readonly string[];
  /** Index of the kind that these flags stand for. */
  kindOf(flags: number): number;
  /** The fields that describe these flags in JSON. */
  fields(flags: number): Record<string, unknown>;
}

/** The kinds of any metadata context; of an unknown one, whether its flags say anything. */
export function kindsOf(context: string): ContextKinds {
  if (context === Context.allocation) return ALLOCATION;
  if (context === Context.depth) return DEPTH;
  if (isDirtyContext(context)) return { ...DIRTINESS, context };
  return {
    context,
    names: ['flagged', 'plain'],
    kindOf: (flags) => (flags === 0 ? 1 : 0),
    fields: (flags) => ({ flags }),
  };
}

/** A hole that may read as anything is shown as data: it has to be read to know. */
const ALLOCATION: ContextKinds = {
  context: Context.allocation,
  names: ['data', 'zero', 'hole'],
  kindOf: (flags) => (flags & Status.zero ? (flags & Status.hole ? 2 : 1) : 0),
  fields: (flags) => ({
    data: (flags & Status.zero) === 0,
    zero: (flags & Status.zero) !== 0,
    hole: (flags & Status.hole) !== 0,
  }),
};

const DEPTH: ContextKinds = {
  context: Context.depth,
  names: ['here', 'backing', 'nowhere'],
  kindOf: (flags) => (flags === 0 ? 2 : flags === 1 ? 0 : 1),
  fields: (flags) => ({ depth: flags }),
};

const DIRTINESS: Omit<ContextKinds, 'context'> = {
  names: ['dirty', 'clean'],
  kindOf: (flags) => (flags & DIRTY ? 0 : 1),
  fields: (flags) => ({ dirty: (flags & DIRTY) !== 0 }),
};
