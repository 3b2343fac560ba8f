/**
 * What must not reach a terminal as it is: control characters (with those of 8 bits, which some terminals obey), marks
 * that turn the direction of text or cannot be seen, other line breaks, and halves of characters.
 */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

const PLAIN = /^[\n\x20-\x7e]*$/;

/** A name that an image, a server or a file chose, as one line which cannot fool a terminal: with escapes, as in JSON. */
export function printable(text: string): string {
  return escaped(JSON.stringify(text).slice(1, -1));
}

/**
 * Text in which others may be quoted; its lines stay lines. JSON means the same afterwards, as such characters can stand
 * only in its strings, where the escapes are its own.
 */
export function escapeControls(text: string): string {
  // Maps of large disks are many megabytes of this.
  if (PLAIN.test(text)) return text;
  return text.replace(UNPRINTABLE, (char) => (char === '\n' ? char : escaped(char)));
}

/** A message as one line, with or without its end: nobody who is quoted in it can write a line of their own. */
export function oneLine(text: string): string {
  const end = text.endsWith('\n') ? '\n' : '';
  return escapeControls(text.slice(0, text.length - end.length)).replaceAll('\n', '\\n') + end;
}

function escaped(text: string): string {
  return text.replace(UNPRINTABLE, (char) =>
    // Each half of a character beyond 16 bits by itself, as in JSON.
    Array.from({ length: char.length }, (_, i) => unit(char.charCodeAt(i))).join(''),
  );
}

function unit(code: number): string {
  return `\\u${code.toString(16).padStart(4, '0')}`;
}
