/** Images live through snapshots and other sizes, by us and by QEMU in turn; both say the same of them all the time. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  amendQcow2,
  applySnapshot,
  checkQcow2,
  createSnapshot,
  deleteSnapshot,
  openDevice,
  resizeImage,
} from 'lacuna';
import { Random } from 'lacuna/testing';
import { it } from 'vitest';
import { firstSeed, runsOr } from '../support/long-run.js';
import { run } from '../support/peers.js';
import { expectSameMap, mapOf, qemuBytes, qemuMap, readWhole } from '../support/qemu-images.js';
import { makeRandomImage, pickRange, type Subject } from '../support/random-image.js';
import { runHere } from '../support/run-here.js';
import { temporaryFolder } from '../support/temporary-folder.js';

/** Images. */
const RUNS = runsOr(3, 100);
const SEED = firstSeed();
const STEPS = 7;

const folder = temporaryFolder();
const path = join(folder, 'disk.qcow2');

interface Kept {
  readonly name: string;
  readonly bytes: Buffer;
}

interface Life extends Subject {
  kept: Kept[];
  made: number;
  version: 2 | 3;
}

async function write(random: Random, life: Life): Promise<void> {
  const { model } = life;
  const [offset, length] = pickRange(random, model.length, [512, 4096, 65_536]);
  if (length === 0) return;
  const part = model.subarray(offset, offset + length);
  if (random.below(3) === 0) {
    const byte = 1 + random.below(255);
    part.fill(byte);
    await run('qemu-io', ['-f', 'qcow2', '-c', `write -P ${byte} ${offset} ${length}`, path]);
    return;
  }
  const compress = life.options.dataFile === undefined && random.below(3) === 0;
  const file = { driver: 'file', filename: path } as const;
  await using device = await openDevice({ driver: 'qcow2', file, compress }, { writable: true });
  if (random.below(4) === 0) {
    part.fill(0);
    await device.zero(offset, length);
  } else {
    part.set(random.bytes(part.length));
    await device.write(offset, part);
  }
}

/** QEMU gives no advice where refcounts end too soon; so it takes snapshots where they do not. */
function mayQemu({ options }: Life): boolean {
  return (options.refcountBits ?? 16) >= 16;
}

async function takeSnapshot(random: Random, life: Life): Promise<void> {
  const name = `s${life.made++}`;
  const bytes = Buffer.from(life.model);
  if (mayQemu(life) && random.below(3) === 0) {
    await run('qemu-img', ['snapshot', '-c', name, path]);
    life.kept.push({ name, bytes });
    return;
  }
  try {
    const { size } = await createSnapshot(path, name);
    assert.equal(size, bytes.length);
    life.kept.push({ name, bytes });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code !== 'ERR_QCOW2_UNSUPPORTED') throw error;
    assert.match(message, /has refcounts of [1248] bits/);
  }
}

async function goBack(random: Random, life: Life): Promise<void> {
  const { name, bytes } = random.pick(life.kept);
  const byQemu = mayQemu(life) && random.below(3) === 0;
  try {
    if (byQemu) await run('qemu-img', ['snapshot', '-a', name, path]);
    else await applySnapshot(path, name);
  } catch (error) {
    const { code } = error as { code?: string };
    if (byQemu || code !== 'ERR_QCOW2_UNSUPPORTED') throw error;
    return;
  }
  life.model = Buffer.from(bytes);
}

async function forget(random: Random, life: Life): Promise<void> {
  const { name } = random.pick(life.kept);
  if (random.below(3) === 0) await run('qemu-img', ['snapshot', '-d', name, path]);
  else await deleteSnapshot(path, name);
  life.kept = life.kept.filter((other) => other.name !== name);
}

async function resize(random: Random, life: Life): Promise<void> {
  const { model, options } = life;
  const { clusterSize = 65_536 } = options;
  if (life.version === 2 && life.kept.length > 0) return;
  const change = 512 * (random.below(4000) - 1500);
  const size = Math.max(512, model.length + change);
  // QEMU lets bytes come back that were cut off, and lie in the last cluster.
  const byQemu = model.length % clusterSize === 0 && random.below(2) === 0;
  if (byQemu) {
    await run('qemu-img', ['resize', '-q', '-f', 'qcow2', '--shrink', path, String(size)]);
  } else {
    const modes = ['off', 'off', 'metadata', 'falloc', 'full'] as const;
    const preallocation = size > model.length ? random.pick(modes) : 'off';
    const report = await resizeImage(path, size, { shrink: true, preallocation });
    assert.deepEqual([report.before, report.size], [model.length, size]);
  }
  life.model = Buffer.alloc(size);
  model.copy(life.model);
}

/** Another version where the image has nothing that this has not, or lazy refcounts. */
async function amend(random: Random, life: Life): Promise<void> {
  const lazyRefcounts = random.below(2) === 0;
  const version = life.version === 2 || random.below(2) === 0 ? 3 : 2;
  try {
    if (version === 3 && random.below(3) === 0) {
      const list = `compat=1.1,lazy_refcounts=${lazyRefcounts ? 'on' : 'off'}`;
      await run('qemu-img', ['amend', '-f', 'qcow2', '-o', list, path]);
    } else if (version === 3) {
      const report = await amendQcow2(path, { version, lazyRefcounts });
      assert.deepEqual([report.version, report.lazyRefcounts], [version, lazyRefcounts]);
    } else {
      const report = await amendQcow2(path, { version, lazyRefcounts: false });
      assert.equal(report.version, version);
    }
    life.version = version;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code !== 'ERR_QCOW2_UNSUPPORTED') throw error;
    assert.match(message, /version 2 has no such thing/);
  }
}

async function step(random: Random, life: Life): Promise<string> {
  const hasSnapshots = life.kept.length > 0;
  const canShare = life.options.dataFile === undefined;
  const choices = [
    { what: 'write', act: write },
    { what: 'resize', act: resize },
    { what: 'amend', act: amend },
    ...(canShare ? [{ what: 'take', act: takeSnapshot }] : []),
    ...(hasSnapshots ? [{ what: 'go back', act: goBack }] : []),
    ...(hasSnapshots ? [{ what: 'forget', act: forget }] : []),
  ];
  const { what, act } = random.pick(choices);
  await act(random, life);
  return what;
}

interface QemuInfo {
  'virtual-size': number;
  'cluster-size': number;
  snapshots?: { id: string; name: string; 'vm-state-size': number; 'date-sec': number }[];
  'format-specific': { data: { compat: string; 'refcount-bits': number; corrupt?: boolean } };
}

/** Both find nothing wrong, count the same, and see the same disks. */
async function judge({ model, kept }: Life): Promise<void> {
  const checked = JSON.parse(await run('qemu-img', ['check', '--output=json', path]));
  const ours = await checkQcow2(path);
  assert.deepEqual(
    [ours.corruptions, ours.leaks, ours.imageEnd, ours.totalClusters, ours.allocatedClusters],
    [
      checked.corruptions ?? 0,
      checked.leaks ?? 0,
      checked['image-end-offset'],
      checked['total-clusters'] ?? 0,
      checked['allocated-clusters'] ?? 0,
    ],
  );
  assert.deepEqual([ours.corruptions, ours.leaks], [0, 0]);
  const info = JSON.parse(await run('qemu-img', ['info', '--output=json', path])) as QemuInfo;
  await using device = await openDevice(path);
  const { version, clusterSize, refcountBits, snapshots } = device.details!;
  assert.deepEqual(
    [device.size, clusterSize, version, refcountBits],
    [
      info['virtual-size'],
      info['cluster-size'],
      info['format-specific'].data.compat === '0.10' ? 2 : 3,
      info['format-specific'].data['refcount-bits'],
    ],
  );
  assert.deepEqual(
    snapshots.map(({ id, name, stateSize, date }) => [
      id,
      name,
      stateSize,
      Date.parse(date) / 1000,
    ]),
    (info.snapshots ?? []).map((one) => [one.id, one.name, one['vm-state-size'], one['date-sec']]),
  );
  assert.deepEqual(
    snapshots.map(({ name, size }) => [name, size]),
    kept.map(({ name, bytes }) => [name, bytes.length]),
  );
  assert.ok((await readWhole(device)).equals(model), 'the disk, as we read it');
  const raw = join(folder, 'model.raw');
  writeFileSync(raw, model);
  await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', path, raw]);
  expectSameMap(await mapOf(device), await qemuMap(path), model);
  for (const { name, bytes } of kept) {
    const file = { driver: 'file', filename: path } as const;
    await using snapshot = await openDevice({ driver: 'qcow2', file, snapshot: name });
    assert.ok((await readWhole(snapshot)).equals(bytes), `snapshot ${name}, as we read it`);
  }
  await judgeMeasure();
  const last = kept.at(-1);
  if (last !== undefined) {
    // It shows snapshots with the size that the disk has now.
    const theirs = await qemuBytes(path, ['-l', last.name]);
    const length = Math.min(theirs.length, last.bytes.length);
    const isSame = theirs.subarray(0, length).equals(last.bytes.subarray(0, length));
    assert.ok(isSame, `snapshot ${last.name}, as QEMU reads it`);
  }
}

/** What a copy of it would take. */
async function judgeMeasure(): Promise<void> {
  const args = ['measure', '-O', 'qcow2', path];
  const theirs = JSON.parse(await run('qemu-img', [...args, '--output=json']));
  const ours = await runHere([...args, '--json']);
  const { required, 'fully-allocated': full } = JSON.parse(ours.stdout);
  assert.deepEqual([required, full], [theirs.required, theirs['fully-allocated']]);
}

it('snapshots and other sizes, by us and by QEMU in turn, leave images of which both say the same', async () => {
  for (let seed = SEED; seed < SEED + RUNS; seed++) {
    for (const name of ['backing.raw', 'backing.qcow2', 'data.raw']) {
      rmSync(join(folder, name), { force: true });
    }
    const random = new Random(seed);
    const subject = await makeRandomImage(folder, random);
    const { version = 3 } = subject.options;
    const life: Life = { ...subject, kept: [], made: 0, version };
    const told: string[] = [];
    try {
      await judge(life);
      for (let i = 0; i < STEPS; i++) {
        told.push(await step(random, life));
        await judge(life);
      }
    } catch (cause) {
      const how = `${told.join(', ')} of ${JSON.stringify(life.options)}`;
      throw new Error(`LACUNA_SEED=${seed} finds it: ${how}`, { cause });
    }
  }
});
