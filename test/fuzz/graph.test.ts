/**
 * Random histories of a graph, beside arrays of bytes that do the same. After every step exports read what the arrays hold, views
 * read what they held when they began, and every bitmap has all that it must have.
 */

import { expect, test } from 'vitest';
import { Device, type Driver } from '#dist/block/index.js';
import { LacunaError } from '#dist/errors/index.js';
import { Graph, type MirrorJob, type Node, type Root } from '#dist/graph/index.js';
import { Random } from '#dist/testing/index.js';
import { firstSeed, runsOr } from '../support/long-run.js';

const GRANULE = 65_536;
const SIZE = 4 * GRANULE;
const STEPS = 300;
const HISTORIES = runsOr(20);
const MOST_NODES = 6;

/** A disk whose writes fail now and then, with or without having been made. */
class Leaf {
  readonly bytes = new Uint8Array(SIZE);
  readonly device: Device;
  /** One in so many writes fails; 0 for none. */
  failsOneIn = 0;

  constructor(name: string, random: Random) {
    const { bytes } = this;
    const change = async (make: () => void) => {
      const fails = this.failsOneIn > 0 && random.below(this.failsOneIn) === 0;
      if (!fails || random.below(2) === 0) make();
      if (fails) throw new LacunaError('ERR_DEVICE_IO', `${name} fails`);
    };
    const driver: Driver = {
      name,
      size: SIZE,
      limits: {
        minimum: 1,
        preferred: 4096,
        maximum: SIZE,
        maximumZero: SIZE,
        zeroAlignment: 1,
        discardAlignment: 1,
      },
      capabilities: { write: true, zero: true, discard: true, flush: true },
      read: async (offset, target) =>
        target.set(bytes.subarray(offset, offset + target.byteLength)),
      write: (offset, source) => {
        const copy = source.slice();
        return change(() => bytes.set(copy, offset));
      },
      zero: (offset, length) => change(() => void bytes.fill(0, offset, offset + length)),
      discard: (offset, length) => change(() => void bytes.fill(0, offset, offset + length)),
      flush: async () => {},
      close: async () => {},
    };
    this.device = new Device(driver);
  }
}

/** A moment of a disk that a filter keeps. */
interface Moment {
  readonly bytes: Uint8Array;
  readonly view: Root;
  readonly filter: string;
}

/** A disk that is mirrored, and where to. */
interface Mirrored {
  readonly job: MirrorJob;
  readonly disk: string;
  readonly target: string;
}

interface Write {
  readonly kind: 'write' | 'zero' | 'discard';
  readonly offset: number;
  readonly length: number;
  readonly value: number;
}

class History {
  readonly random: Random;
  readonly log: string[] = [];
  readonly graph = new Graph({ drainLimitMs: 2 ** 30 });
  readonly #leaves = new Map<string, Leaf>();
  /** What each disk must hold. */
  readonly #disks = new Map<string, Uint8Array>();
  /** Granules that bitmaps must have, by `node/bitmap`. */
  readonly #dirty = new Map<string, Set<number>>();
  readonly #moments: Moment[] = [];
  #mirrored: Mirrored | undefined;
  #guests: Root[] = [];
  #count = 0;

  constructor(seed: number) {
    this.random = new Random(seed);
  }

  async begin(): Promise<void> {
    for (const name of ['a', 'b']) {
      const leaf = new Leaf(name, this.random);
      this.#leaves.set(name, leaf);
      this.#disks.set(name, leaf.bytes.slice());
      await this.graph.addDevice(name, leaf.device);
      const guest = { name: `guest-${name}`, node: name, writable: true };
      this.#guests.push(await this.graph.addExport(guest));
    }
  }

  async step(): Promise<void> {
    const { random } = this;
    const kinds = ['write', 'write', 'write', 'insert', 'remove', 'keep', 'forget', 'stale'];
    const more = ['swap', 'bitmap', 'bitmap', 'failing', 'giveBack', 'mirror', 'steer', 'steer'];
    const kind = random.pick([...kinds, ...more, 'endMirror']);
    this.log.push(kind);
    const change = (): Promise<void> => this[kind as 'insert']();
    if (kind === 'write' || random.below(2) === 0) return change();
    // Most changes happen beside writes, as they do in life.
    await Promise.all([this.write(), change()]);
  }

  /** Several writes of both guests, side by side; each changes a part of the disk of its own. */
  async write(): Promise<void> {
    const { random } = this;
    await Promise.all(
      this.#guests.flatMap((guest) =>
        [0, 1, 2, 3].map(async (part) => {
          const from = part * GRANULE + random.below(GRANULE - 1);
          const length = 1 + random.below((part + 1) * GRANULE - from - 1);
          const kind = random.pick(['write', 'write', 'zero', 'discard'] as const);
          const value = 1 + random.below(250);
          await this.#carryOut(guest, { kind, offset: from, length, value });
        }),
      ),
    );
  }

  async #carryOut(guest: Root, { kind, offset, length, value }: Write): Promise<void> {
    const bytes = new Uint8Array(length).fill(kind === 'write' ? value : 0);
    const before = this.#path(guest.node);
    const request =
      kind === 'write'
        ? guest.write(offset, bytes)
        : kind === 'zero'
          ? guest.zero(offset, length)
          : guest.discard(offset, length);
    const failed = await request.then(
      () => false,
      () => true,
    );
    // Beside a change it may have gone either way; then nothing is asked of the bitmaps in between.
    const path = this.#path(guest.node);
    const disk = path.at(-1)!;
    const known = this.#disks.get(disk)!;
    if (this.#disks.get(before.at(-1)!) !== known) {
      for (const [name, leaf] of this.#leaves) this.#disks.set(name, leaf.bytes.slice());
      this.#mirrorIsTheSame();
      return;
    }
    if (failed) this.#resync(disk, offset, length);
    else known.set(bytes, offset);
    if (failed) return;
    for (const node of path.filter((each) => before.includes(each))) {
      for (const [key, granules] of this.#dirty) {
        if (key.startsWith(`${node}/`)) granules.add(Math.floor(offset / GRANULE));
      }
    }
  }

  /** A write that failed may have been made. */
  #resync(disk: string, offset: number, length: number): void {
    const end = offset + length;
    this.#disks.get(disk)!.set(this.#leaves.get(disk)!.bytes.subarray(offset, end), offset);
  }

  /** The nodes from one down to its disk. */
  #path(node: Node): string[] {
    const below = this.graph.edges.find(
      ({ parent, child }) => parent === node.name && child === 'file',
    );
    return [node.name, ...(below ? this.#path(this.graph.node(below.node)) : [])];
  }

  get #filters(): Node[] {
    return this.graph.nodes.filter(({ driverName }) => driverName === 'delay');
  }

  async insert(): Promise<void> {
    if (this.graph.nodes.length >= MOST_NODES) return;
    const candidates = this.graph.nodes.filter(
      ({ driverName }) => driverName !== 'snapshot-access',
    );
    const above = this.random.pick(
      candidates.filter(
        ({ name }) => !name.startsWith('target') && name !== this.#mirrored?.target,
      ),
    );
    const name = `filter-${++this.#count}`;
    const filter = { driver: 'delay', milliseconds: 0, 'node-name': name } as const;
    const parents = this.graph.edges
      .filter(({ node, parent }) => node === above.name && !parent.startsWith('view'))
      .map(({ parent }) => parent);
    await this.graph.insertFilter({ filter, above, parents });
  }

  async remove(): Promise<void> {
    if (this.#filters.length === 0) return;
    const filter = this.random.pick(this.#filters);
    await this.graph.removeFilter(filter);
    this.#forgetBitmaps(filter.name);
  }

  /** A guest's disk is kept as it is at this moment. */
  async keep(): Promise<void> {
    if (this.#moments.length > 0 || this.graph.nodes.length + 3 > MOST_NODES + 2) return;
    const disk = this.#diskOf(this.random.pick(this.#guests));
    const number = ++this.#count;
    const [target, filter, view] = [`target-${number}`, `keep-${number}`, `view-${number}`];
    await this.graph.addDevice(target, new Leaf(target, this.random).device);
    const leaf = this.#leaves.get(disk)!;
    let bytes = new Uint8Array();
    const begins = Object.assign({}, { driver: 'copy-before-write', 'node-name': filter, target });
    await this.graph.insertFilter({ filter: begins as never, above: disk });
    // Nothing that waits has gone on yet.
    bytes = leaf.bytes.slice();
    await this.graph.add(
      { driver: 'snapshot-access', 'node-name': view, file: filter },
      { writable: true },
    );
    const root = await this.graph.addExport({
      name: `reader-${number}`,
      node: view,
      writable: true,
    });
    this.#moments.push({ bytes, view: root, filter });
  }

  async forget(): Promise<void> {
    const moment = this.#moments.pop();
    if (moment === undefined) return;
    const { view, filter } = moment;
    const number = filter.slice('keep-'.length);
    await view.close();
    await this.graph.remove(`view-${number}`);
    await this.graph.removeFilter(filter);
    await this.graph.remove(`target-${number}`);
    for (const name of [`view-${number}`, filter, `target-${number}`]) this.#forgetBitmaps(name);
  }

  async giveBack(): Promise<void> {
    const [moment] = this.#moments;
    if (moment === undefined) return;
    // The last granule of it, again and again; the rest stays readable.
    await moment.view.discard(3 * GRANULE, GRANULE);
    await expect(moment.view.read(3 * GRANULE, new Uint8Array(1))).rejects.toThrow('given back');
  }

  /** Somebody expects another node than the one that is there. */
  async stale(): Promise<void> {
    const guest = this.random.pick(this.#guests);
    const wrong = this.graph.nodes.filter((node) => node !== guest.node);
    const change = {
      parent: guest,
      child: 'root',
      expected: this.random.pick(wrong),
      replacement: this.random.pick(this.graph.nodes),
      unsafe: true,
    };
    const { edges } = this.graph;
    await expect(this.graph.replaceChild(change)).rejects.toMatchObject({
      code: 'ERR_GRAPH_EDGE_CHANGED',
    });
    expect(this.graph.edges).toEqual(edges);
  }

  /** The guests change their disks, at one moment. */
  async swap(): Promise<void> {
    const [one, other] = this.#guests;
    const change = (parent: Root, from: Root, to: Root) => ({
      ...{ parent, child: 'root', expected: from.node, replacement: to.node },
      unsafe: true,
    });
    await this.graph.replaceChild([change(one, one, other), change(other, other, one)]);
  }

  async bitmap(): Promise<void> {
    const { random } = this;
    const actions: Record<string, { type: 'add' | 'clear' | 'remove'; name: string }[]> = {};
    for (const node of this.graph.nodes) {
      const there = node.bitmaps.map(({ name }) => name);
      const type = there.length === 0 ? 'add' : random.pick(['add', 'clear', 'remove'] as const);
      const name = type === 'add' ? `bitmap-${++this.#count}` : random.pick(there);
      if (there.length < 3 || type !== 'add') actions[node.name] = [{ type, name }];
    }
    await this.graph.changeBitmaps(actions);
    for (const [node, [{ type, name }]] of Object.entries(actions)) {
      if (type === 'remove') this.#dirty.delete(`${node}/${name}`);
      else this.#dirty.set(`${node}/${name}`, new Set());
    }
  }

  async failing(): Promise<void> {
    const leaf = this.random.pick([...this.#leaves.values()]);
    leaf.failsOneIn = leaf.failsOneIn === 0 ? 5 : 0;
  }

  #diskOf(guest: Root): string {
    return this.#path(guest.node).at(-1)!;
  }

  /** What the target of a mirror is going to hold is what its disk holds. */
  #mirrorIsTheSame(): void {
    if (this.#mirrored === undefined) return;
    const { disk, target } = this.#mirrored;
    this.#disks.set(target, this.#disks.get(disk)!);
  }

  /** A guest's disk is mirrored from now on. */
  async mirror(): Promise<void> {
    const { random, graph } = this;
    if (this.#mirrored !== undefined || graph.nodes.length > MOST_NODES) return;
    const disk = this.#diskOf(random.pick(this.#guests));
    const target = `mirror-${++this.#count}`;
    const leaf = new Leaf(target, random);
    leaf.bytes.fill(0xee);
    this.#leaves.set(target, leaf);
    await graph.addDevice(target, leaf.device);
    const copyMode = random.pick(['background', 'write-blocking'] as const);
    const detectZeroes = random.pick(['off', 'unmap'] as const);
    const job = graph.mirror({ node: disk, target, copyMode, detectZeroes, onTargetError: 'stop' });
    this.#mirrored = { job, disk, target };
    this.#mirrorIsTheSame();
    const isIn = () => graph.edges.some(({ node }) => node === `${disk}.mirror`);
    while (!isIn()) await new Promise((resolve) => setImmediate(resolve));
  }

  /** The mode is switched, the job is paused or goes on. */
  async steer(): Promise<void> {
    const { random } = this;
    const job = this.#mirrored?.job;
    const copyMode = random.pick(['background', 'write-blocking'] as const);
    const verb = random.pick(['change', 'change', 'pause', 'resume']);
    if (verb === 'change') job?.change({ copyMode });
    else if (verb === 'pause') job?.pause();
    else job?.resume();
  }

  /** The target comes into the place of the disk, or not. */
  async endMirror(): Promise<void> {
    if (this.#mirrored === undefined) return;
    const { job, disk, target } = this.#mirrored;
    const leaf = this.#leaves.get(target)!;
    leaf.failsOneIn = 0;
    // What has failed before may be told only now.
    job.on('paused', () => job.resume());
    job.resume();
    const how = this.random.pick(['complete', 'complete', 'cancel', 'stop'] as const);
    if (how === 'complete') await job.complete();
    else if (how === 'stop') job.stop();
    else await job.cancel();
    await job.catch(() => {});
    const bitmaps = how === 'complete' ? (await job).bitmaps : [];
    this.#mirrored = undefined;
    this.#forgetBitmaps(`${disk}.mirror`);
    for (const name of bitmaps) {
      const granules = this.#dirty.get(`${disk}/${name}`);
      if (granules !== undefined) this.#dirty.set(`${target}/${name}`, new Set(granules));
    }
    if (how === 'complete') this.#disks.set(disk, this.#leaves.get(disk)!.bytes.slice());
    else await this.#retire(target);
  }

  /** Disks that no guest has any more go. */
  async #retireAll(): Promise<void> {
    const used = new Set([
      ...this.#guests.map((guest) => this.#diskOf(guest)),
      this.#mirrored?.target,
    ]);
    for (const name of this.#leaves.keys()) {
      const isFree = !this.graph.edges.some(({ node }) => node === name);
      if (!used.has(name) && isFree) await this.#retire(name);
    }
  }

  async #retire(name: string): Promise<void> {
    await this.graph.remove(name);
    this.#leaves.delete(name);
    this.#disks.delete(name);
    this.#forgetBitmaps(name);
  }

  #forgetBitmaps(node: string): void {
    for (const key of this.#dirty.keys()) if (key.startsWith(`${node}/`)) this.#dirty.delete(key);
  }

  async check(): Promise<void> {
    await this.#retireAll();
    const bytes = new Uint8Array(SIZE);
    for (const guest of this.#guests) {
      await guest.read(0, bytes);
      const disk = this.#path(guest.node).at(-1)!;
      expect(Buffer.compare(bytes, this.#disks.get(disk)!), `${guest.name} reads ${disk}`).toBe(0);
    }
    for (const moment of this.#moments) {
      const part = new Uint8Array(3 * GRANULE);
      await moment.view.read(0, part);
      expect(Buffer.compare(part, moment.bytes.subarray(0, part.length)), 'the view').toBe(0);
    }
    for (const [key, granules] of this.#dirty) {
      const [node, name] = key.split('/');
      const bitmap = await this.graph.node(node).bitmap(name);
      const missing = [...granules].filter((granule) => !bitmap.get(granule * GRANULE));
      expect(missing, `bitmap ${key}`).toEqual([]);
    }
  }
}

test('random histories of a graph read and record what arrays of bytes say', async () => {
  for (let seed = firstSeed(), left = HISTORIES; left > 0; seed++, left--) {
    const history = new History(seed);
    try {
      await history.begin();
      for (let step = 0; step < STEPS; step++) {
        await history.step();
        await history.check();
      }
      await history.graph.close();
    } catch (cause) {
      const steps = history.log.slice(-20).join(', ');
      throw new Error(`LACUNA_SEED=${seed}, step ${history.log.length}: ${steps}`, { cause });
    }
  }
});
