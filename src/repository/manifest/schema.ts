/** What a manifest looks like: JSON schema, of which every repository has a copy. docs/repository.md explains it. */

const hex = (digits: number) => ({ type: 'string', pattern: `^[0-9a-f]{${digits}}$` });
const bytes = { type: 'integer', minimum: 0, maximum: Number.MAX_SAFE_INTEGER };
const number = { type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER };
const name = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$' };
/** What images and leaves may be called. */
export const FILENAME_PATTERN = '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$';
const filename = { type: 'string', pattern: FILENAME_PATTERN };
const digest = { type: 'string', pattern: '^lacuna1:[0-9a-f]{64}$' };
const text = { type: 'string', maxLength: 4096 };
const object = (properties: Record<string, object>, optional: readonly string[] = []) => ({
  type: 'object',
  additionalProperties: false,
  required: Object.keys(properties).filter((key) => !optional.includes(key)),
  properties,
});

const file = {
  name: filename,
  size: bytes,
  digest,
  compression: { enum: ['deflate', 'zstd', null] },
  leaves: object({ name: filename, size: bytes, headSha256: hex(64), sha256: hex(64) }),
};

const image = object(
  {
    ...file,
    parent: { anyOf: [number, { type: 'null' }] },
    below: { type: 'array', items: object({ ...file, number }) },
  },
  ['below'],
);

const disk = object(
  {
    name,
    size: bytes,
    digest,
    source: text,
    mode: { enum: ['full', 'bitmap', 'digests', 'given'] },
    reason: text,
    movedBytes: bytes,
    bitmap: text,
    file: image,
    replacement: image,
  },
  ['replacement'],
);

export const POINT_SCHEMA = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'Manifest of a restore point, version 1, without its first member "sha256"',
  ...object({
    format: { const: 'lacuna-point' },
    version: { const: 1 },
    repository: text,
    machine: name,
    number,
    id: hex(16),
    time: { type: 'string', pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$' },
    durationMs: { type: 'number', minimum: 0 },
    tags: { type: 'array', items: { type: 'string', minLength: 1, maxLength: 256 } },
    writer: object({ lacuna: text, node: text }),
    configuration: {},
    disks: { type: 'array', items: disk },
  }),
} as const;

/** The file of the schema. */
export function schemaText(): string {
  return `${JSON.stringify(POINT_SCHEMA, null, 2)}\n`;
}
