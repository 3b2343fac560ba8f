/** Flags that several commands share, so that they read the same everywhere. */
export const FORMAT_FLAG = '-f, --format <format>';
export const FORMAT_TEXT =
  'image format of the source, raw or qcow2 (default: from its name, never its content)';
/** For commands about one image, which is no source. */
export const IMAGE_FORMAT_TEXT =
  'image format, raw or qcow2 (default: from the name, never the content)';
export const SHARE_FLAG = '-U, --force-share';
export const SHARE_TEXT = 'read even if another program is writing; the result may be inconsistent';

/** Gathers an option that may be repeated. */
export function collect(value: string, values: string[] = []): string[] {
  return [...values, value];
}
