import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { seal, unseal } from '#dist/repository/layout/index.js';
import { POINT_SCHEMA, schemaText } from '#dist/repository/manifest/schema.js';

const document = { format: 'something', list: [1, 2], name: 'ä' };

test('a sealed document is JSON, with the checksum of all bytes behind the first 76', () => {
  const bytes = seal(document);
  const { sha256, ...rest } = JSON.parse(bytes.toString());
  expect(rest).toEqual(document);
  expect(createHash('sha256').update(bytes.subarray(76)).digest('hex')).toBe(sha256);
  expect(unseal(bytes)).toEqual(document);
});

test('no bit of it may change, and no byte may go or come', () => {
  const bytes = seal(document);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const changed = Buffer.from(bytes);
    changed[bit >> 3] ^= 1 << (bit & 7);
    expect({ bit, found: unseal(changed) }).toEqual({ bit, found: undefined });
  }
  expect(unseal(bytes.subarray(0, -1))).toBeUndefined();
  expect(unseal(Buffer.concat([bytes, Buffer.from('\n')]))).toBeUndefined();
  expect(unseal(Buffer.alloc(0))).toBeUndefined();
});

test('the schema of manifests lets nothing in that it does not name', () => {
  const objects = [...schemaText().matchAll(/"type": "object"/g)].length;
  expect([...schemaText().matchAll(/"additionalProperties": false/g)]).toHaveLength(objects);
  expect(JSON.parse(schemaText())).toEqual(POINT_SCHEMA);
});
