// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not reach a terminal
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g;

/** A name that an image or a server chose, which must not be able to fool a terminal: with escapes, as in JSON. */
export function printable(text: string): string {
  return escapeControls(JSON.stringify(text).slice(1, -1));
}

/** A message, in which others may be quoted; its lines stay lines. */
export function escapeControls(text: string): string {
  return text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
