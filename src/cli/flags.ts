/** Flags that several commands share, so that they read the same everywhere. */
export const FORMAT_FLAG = '-f, --format <format>';
export const FORMAT_TEXT = 'image format of the source (default: from its name, never its content)';

/** Gathers an option that may be repeated. */
export function collect(value: string, values: string[] = []): string[] {
  return [...values, value];
}
