export { check, checkMember } from './check.js';
export { type Command, command, event } from './command.js';
export { introspect } from './introspect.js';
export { parseArgument } from './keys.js';
export {
  about,
  alternate,
  anything,
  count,
  flag,
  integer,
  list,
  type Members,
  nothing,
  optional,
  type Shape,
  size,
  struct,
  type Type,
  text,
  union,
  type ValuesOf,
  word,
} from './types.js';
