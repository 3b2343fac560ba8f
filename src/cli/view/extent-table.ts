import type { ContextKinds, StatusRange } from '../device/index.js';
import { formatBytes } from '../text/index.js';

/** Wide enough for every offset that a number holds exactly. */
const OFFSET_COLUMNS = 16;

/** The heading of a table of extents. */
export function tableHeading(): string {
  const start = 'start'.padStart(OFFSET_COLUMNS);
  return `${start}  ${'length'.padStart(OFFSET_COLUMNS)}  ${'size'.padStart(9)}  status`;
}

/** One extent as a line for people: exact bytes, then the same in KiB, MiB and so on. */
export function tableLine(range: StatusRange, contexts: readonly ContextKinds[]): string {
  const start = String(range.offset).padStart(OFFSET_COLUMNS);
  const length = String(range.length).padStart(OFFSET_COLUMNS);
  const names = contexts.map((kinds, i) => kinds.names[kinds.kindOf(range.flags[i])]);
  return `${start}  ${length}  ${formatBytes(range.length).padStart(9)}  ${names.join(', ')}`;
}

/**
 * One extent as JSON. One context gives its own fields; several give them by context, because two of
 * them may have fields of the same name.
 */
export function extentJson(range: StatusRange, contexts: readonly ContextKinds[]): string {
  const { offset, length, flags } = range;
  const place = `{"start":${offset},"length":${length}`;
  if (contexts.length === 1) return `${place},${fieldsJson(contexts[0], flags[0]).slice(1)}`;
  const fields = contexts.map(
    (kinds, i) => `${JSON.stringify(kinds.context)}:${fieldsJson(kinds, flags[i])}`,
  );
  return `${place},"contexts":{${fields.join(',')}}}`;
}

const known = new WeakMap<ContextKinds, Map<number, string>>();

/** A device has extents by the hundred thousand, and they have but a few values. */
function fieldsJson(kinds: ContextKinds, flags: number): string {
  let texts = known.get(kinds);
  if (texts === undefined) {
    texts = new Map();
    known.set(kinds, texts);
  }
  let text = texts.get(flags);
  if (text === undefined) {
    text = JSON.stringify(kinds.fields(flags));
    texts.set(flags, text);
  }
  return text;
}
