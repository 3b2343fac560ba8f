import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { createQcow2, openDevice, type Qcow2Options } from 'lacuna';
import { expect, test } from 'vitest';
import { noise } from '../../support/noise.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const CLUSTER = 64 * 1024;

const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');
const description = {
  driver: 'qcow2',
  file: { driver: 'file', filename: path },
  compress: true,
} as const;

/** Bytes that shrink to a few. */
const text = (letter: string) => Buffer.alloc(CLUSTER, letter);

async function make(options: Partial<Qcow2Options> = {}) {
  await createQcow2(path, { size: 64 * CLUSTER, ...options });
  return openDevice(description, { writable: true });
}

function check(): string {
  return execFileSync('qemu-img', ['check', '-f', 'qcow2', path], { encoding: 'utf8' });
}

test('compressed clusters share clusters of the file', async () => {
  const device = await make();
  for (let i = 0; i < 40; i++) await device.write(i * CLUSTER, text(String.fromCharCode(65 + i)));
  await device.close();
  expect(check()).toMatch(/40\/64 = 62.50% allocated, .* 100.00% compressed/);
  expect(statSync(path).size).toBeLessThanOrEqual(6 * CLUSTER);
});

test('a compressed image stores no zeroes, and stores as it is what does not shrink', async () => {
  const device = await make();
  const random = noise(2 * CLUSTER);
  await device.write(0, Buffer.alloc(4 * CLUSTER));
  await device.write(8 * CLUSTER, random);
  const found = Buffer.alloc(2 * CLUSTER);
  await device.read(8 * CLUSTER, found);
  expect(found.equals(random)).toBe(true);
  await device.close();
  expect(check()).toMatch(/2\/64 .* 0.00% compressed/);
});

test('a cluster is compressed for the little in it that shrinks', async () => {
  const device = await make();
  const bytes = noise(2 * CLUSTER);
  bytes.fill(0, 2 * CLUSTER - 1024);
  await device.write(0, bytes);
  const found = Buffer.alloc(2 * CLUSTER);
  await device.read(0, found);
  expect(found.equals(bytes)).toBe(true);
  await device.close();
  expect(check()).toMatch(/2\/64 .* 50.00% compressed/);
});

test('a part of a compressed cluster is written without losing the rest', async () => {
  const device = await make();
  await device.write(0, text('a'));
  await device.write(1000, Buffer.from('changed'));
  const found = Buffer.alloc(CLUSTER);
  await device.read(0, found);
  const wanted = text('a');
  wanted.write('changed', 1000);
  expect(found.equals(wanted)).toBe(true);
  await device.close();
  check();
});

test('no compressed data goes into a cluster that was given back and taken for something else', async () => {
  const device = await make();
  await device.write(0, text('a'));
  await device.flush();
  // Its place is free now, and the next plain cluster takes it.
  await device.write(0, noise(CLUSTER));
  await device.flush();
  const kept = noise(CLUSTER);
  await device.write(CLUSTER, kept);
  await device.write(2 * CLUSTER, text('b'));
  const found = Buffer.alloc(CLUSTER);
  await device.read(CLUSTER, found);
  expect(found.equals(kept)).toBe(true);
  await device.close();
  check();
});

test('zeroes are written in clusters of any size, where an entry cannot say them', async () => {
  const device = await make({ clusterSize: 2 * 1024 * 1024, version: 2 });
  await device.write(0, text('a'));
  await device.zero(0, device.size, { unmap: false });
  const found = Buffer.alloc(CLUSTER, 1);
  await device.read(0, found);
  expect(found.equals(Buffer.alloc(CLUSTER))).toBe(true);
  await device.close();
  check();
});

test('an image with a fixed mapping or a data file refuses compressed clusters', async () => {
  await (await make()).close();
  const fixed = openDevice({ ...description, mapping: 'fixed' }, { writable: true });
  await expect(fixed).rejects.toThrow(/leave out "mapping" or "compress"/);
  const data = make({ dataFile: 'disk.data' });
  await expect(data).rejects.toMatchObject({ code: 'ERR_DEVICE_UNSUPPORTED' });
});
