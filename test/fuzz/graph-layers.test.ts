/**
 * Random histories of a disk in a graph, beside a model that keeps a value for each granule and, for each bitmap, what must be dirty and
 * what may be. After every step the export reads what the model has, and every bitmap lies between the two.
 */
import { createQcow2 } from 'lacuna';
import type { BitmapAction } from 'lacuna/bitmap';
import { Graph, type GraphAction, type Root, type SnapshotDisk } from 'lacuna/graph';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import { firstSeed, runsOr } from '../support/long-run.js';
import { settled } from '../support/manual-disk.js';
import { workInNewFolders } from '../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const STEPS = 30;
const MOST_LAYERS = 5;
const MOST_GRANULES = 24;

/** A bitmap of the model. */
interface Bits {
  must: Set<number>;
  may: Set<number>;
  recording: boolean;
}

/** A layer of the model. What it holds lies between the two: how a discard is kept is the image's to decide. */
interface Layer {
  readonly name: string;
  readonly bitmaps: Map<string, Bits>;
  readonly holds: Set<number>;
  readonly mayHold: Set<number>;
}

const fresh = (name: string): Layer => ({
  name,
  bitmaps: new Map(),
  holds: new Set(),
  mayHold: new Set(),
});

class History {
  readonly random: Random;
  readonly graph = new Graph({ drainLimitMs: 2 ** 30 });
  readonly content: number[] = new Array(12).fill(0);
  readonly layers: Layer[] = [];
  guest!: Root;
  filters = 0;
  #made = 0;
  readonly #prefix: string;

  constructor(seed: number) {
    this.#prefix = `disk${seed}-`;
    this.random = new Random(seed);
  }

  get top(): Layer {
    return this.layers.at(-1)!;
  }

  async begin(): Promise<void> {
    const node = `${this.#prefix}0`;
    await createQcow2(`${node}.qcow2`, { size: this.content.length * G });
    await this.graph.add({ 'node-name': node, ...image(node) }, { writable: true });
    this.layers.push(fresh(node));
    this.guest = await this.graph.addExport({ name: 'guest', node, writable: true });
  }

  async check(): Promise<void> {
    const bytes = new Uint8Array(this.content.length * G);
    await this.guest.read(0, bytes);
    const shown = this.content.map((_, granule) => granuleIn(bytes, granule));
    expect(shown).toEqual(this.content);
    for (const { name, bitmaps } of this.layers) {
      const there = this.graph.node(name).bitmaps.map((info) => `${info.name} ${info.recording}`);
      const expected = [...bitmaps].map(([each, { recording }]) => `${each} ${recording}`);
      // An image that was opened anew has its own first.
      expect(there.sort()).toEqual(expected.sort());
      for (const [each, { must, may }] of bitmaps) {
        const bits = await this.graph.node(name).bitmap(each);
        const dirty = this.content.flatMap((_, i) =>
          i * G < bits.size && bits.get(i * G) ? i : [],
        );
        expect([...must].filter((granule) => !dirty.includes(granule))).toEqual([]);
        expect(dirty.filter((granule) => !may.has(granule))).toEqual([]);
      }
    }
  }

  /** A change by the guest. */
  async write(): Promise<void> {
    const granule = this.random.below(this.content.length);
    const count = 1 + this.random.below(Math.min(3, this.content.length - granule));
    const value = this.random.below(3) === 0 ? 0 : 1 + this.random.below(250);
    const isDiscard = value === 0 && this.random.below(2) === 0;
    for (let i = granule; i < granule + count; i++) {
      this.content[i] = value;
      // Zeroes over nothing need not be kept.
      const isKept = !isDiscard && (value !== 0 || this.layers.length > 1);
      this.#note(i, isKept);
    }
    const [offset, length] = [granule * G, count * G];
    if (isDiscard) await this.guest.discard(offset, length);
    else if (value === 0) await this.guest.zero(offset, length);
    else await this.guest.write(offset, new Uint8Array(length).fill(value));
  }

  #note(granule: number, isKept: boolean): void {
    const { bitmaps, holds, mayHold } = this.top;
    mayHold.add(granule);
    if (isKept) holds.add(granule);
    else holds.delete(granule);
    for (const { recording, must, may } of bitmaps.values()) {
      if (!recording) continue;
      must.add(granule);
      may.add(granule);
    }
  }

  /** Commands for bitmaps of the top layer, and what they do to the model. */
  bitmapActions(): { actions: BitmapAction[]; apply: () => void } {
    const { bitmaps } = this.top;
    const names = [...bitmaps.keys()];
    const name = names.length > 0 ? this.random.pick(names) : undefined;
    if (name === undefined || (names.length < 4 && this.random.below(3) === 0)) {
      const added = `b${this.#made++}`;
      const disabled = this.random.below(3) === 0;
      const persistent = this.random.below(2) === 0;
      return {
        actions: [{ type: 'add', name: added, granularity: G, disabled, persistent }],
        apply: () => bitmaps.set(added, { must: new Set(), may: new Set(), recording: !disabled }),
      };
    }
    const type = this.random.pick(['remove', 'clear', 'enable', 'disable'] as const);
    const bits = bitmaps.get(name)!;
    const effects = {
      remove: () => void bitmaps.delete(name),
      clear: () => void Object.assign(bits, { must: new Set(), may: new Set() }),
      enable: () => void Object.assign(bits, { recording: true }),
      disable: () => void Object.assign(bits, { recording: false }),
    };
    return { actions: [{ type, name }], apply: effects[type] };
  }

  async bitmaps(): Promise<void> {
    const { actions, apply } = this.bitmapActions();
    await this.graph.changeBitmaps({ [this.top.name]: actions });
    apply();
  }

  async populate(): Promise<void> {
    const { bitmaps, name: node, holds, mayHold } = this.top;
    if (bitmaps.size === 0) return;
    const bitmap = this.random.pick([...bitmaps.keys()]);
    const from = this.random.pick(['allocation', 'everything'] as const);
    const operation = this.random.pick(['union', 'overwrite', 'difference'] as const);
    const bits = bitmaps.get(bitmap)!;
    const all = new Set(this.content.keys());
    const [sure, possible] =
      from === 'everything' ? [all, all] : [new Set(holds), new Set(mayHold)];
    const before = { must: new Set(bits.must), may: new Set(bits.may) };
    const isRecording = bits.recording;
    const job = this.graph.populate({
      from,
      ...(from !== 'everything' && { sources: [{ node }] }),
      targets: [{ node, bitmap }],
      operation,
    });
    // Beside it; whether the job or the write is first, nobody knows.
    const since = new Set<number>();
    bits.may = new Set();
    bits.must = new Set();
    bits.recording = true;
    for (let i = this.random.below(3); i > 0; i--) {
      await this.write();
      await settled();
    }
    for (const granule of bits.may) since.add(granule);
    bits.recording = isRecording;
    await job;
    const expected = {
      union: { must: union(before.must, sure), may: union(before.may, possible, since) },
      overwrite: { must: sure, may: union(possible, since) },
      difference: {
        must: new Set([...before.must].filter((granule) => !possible.has(granule))),
        may: union(new Set([...before.may].filter((granule) => !sure.has(granule))), since),
      },
    }[operation];
    // A write may have come before the beginning, and a discard before the question.
    bits.must = new Set([...expected.must].filter((granule) => !since.has(granule)));
    bits.may = union(expected.may, since);
    if (isRecording && operation === 'union') bits.must = union(bits.must, since);
  }

  /** An image for a new layer. */
  async overlay(): Promise<{ disk: SnapshotDisk; apply: () => void }> {
    const below = this.top;
    const name = `${this.#prefix}${this.layers.length}`;
    const overlay = { 'node-name': name, ...image(name) } as const;
    await this.graph.create({ image: overlay, over: below.name });
    const bitmaps = this.random.pick(['continue', 'copy', 'none'] as const);
    return {
      disk: { node: below.name, overlay, bitmaps },
      apply: () => {
        const layer = fresh(name);
        for (const [each, { must, may, recording }] of below.bitmaps) {
          if (bitmaps === 'none' || (bitmaps === 'continue' && !recording)) continue;
          const isCopy = bitmaps === 'copy';
          const bits = { must: new Set(isCopy ? must : []), may: new Set(isCopy ? may : []) };
          layer.bitmaps.set(each, { ...bits, recording });
        }
        this.layers.push(layer);
      },
    };
  }

  async snapshot(): Promise<void> {
    if (this.layers.length >= MOST_LAYERS) return;
    const { disk, apply } = await this.overlay();
    if (this.random.below(2) === 0) await this.graph.snapshot({ disks: [disk] });
    else await this.graph.transaction([{ type: 'snapshot', ...disk }]);
    apply();
  }

  async transaction(): Promise<void> {
    const changed = this.bitmapActions();
    const node = this.top.name;
    const actions: GraphAction[] = [{ type: 'bitmaps', node, actions: changed.actions }];
    const isWrong = this.random.below(3) === 0;
    if (isWrong) {
      actions.push({ type: 'bitmaps', node, actions: [{ type: 'clear', name: 'nowhere' }] });
      await expect(this.graph.transaction(actions)).rejects.toThrow('nowhere');
      return;
    }
    const target = { driver: 'memory', size: this.content.length * G } as const;
    await this.graph.add({ 'node-name': 'target', ...target }, { writable: true });
    actions.push({ type: 'backup', disks: [{ node, target: 'target' }] });
    const before = [...this.content];
    const { jobs } = await this.graph.transaction(actions);
    changed.apply();
    await this.write();
    await Promise.all(jobs);
    const reader = await this.graph.addExport({ name: 'reader', node: 'target' });
    const bytes = new Uint8Array(reader.size);
    await reader.read(0, bytes);
    expect(before.map((_, granule) => granuleIn(bytes, granule))).toEqual(before);
    await reader.close();
    await this.graph.remove('target');
  }

  async resize(): Promise<void> {
    if (this.filters > 0 || this.content.length >= MOST_GRANULES) return;
    for (let i = 0; i < 2; i++) this.content.push(0);
    const granules = [this.content.length - 2, this.content.length - 1];
    for (const granule of granules) this.top.mayHold.add(granule);
    await this.graph.resize(this.top.name, this.content.length * G);
    await this.guest.close();
    this.guest = await this.graph.addExport({ name: 'guest', node: this.top.name, writable: true });
  }

  async filter(): Promise<void> {
    if (this.filters > 0) {
      await this.graph.removeFilter('filter');
      this.filters = 0;
      return;
    }
    const filter = { driver: 'delay', milliseconds: 0, 'node-name': 'filter' } as const;
    await this.graph.insertFilter({ filter, above: this.top.name });
    this.filters = 1;
  }

  async step(): Promise<void> {
    const steps = [
      ...[() => this.write(), () => this.write(), () => this.write()],
      ...[() => this.bitmaps(), () => this.bitmaps()],
      ...[() => this.populate(), () => this.populate(), () => this.transaction()],
      ...[() => this.snapshot(), () => this.filter(), () => this.resize()],
    ];
    await this.random.pick(steps)();
  }
}

function image(name: string) {
  return { driver: 'qcow2', file: { driver: 'file', filename: `${name}.qcow2` } } as const;
}

function granuleIn(bytes: Uint8Array, granule: number): number {
  const part = bytes.subarray(granule * G, (granule + 1) * G);
  return part.every((byte) => byte === part[0]) ? part[0] : -1;
}

function union(...sets: readonly ReadonlySet<number>[]): Set<number> {
  return new Set(sets.flatMap((set) => [...set]));
}

test('whatever happens to a disk in a graph, it shows what was written, and its bitmaps lack nothing', async () => {
  const first = firstSeed();
  for (let seed = first; seed < first + runsOr(2); seed++) {
    const history = new History(seed);
    await history.begin();
    try {
      for (let step = 0; step < STEPS; step++) {
        await history.step();
        await history.check();
      }
    } catch (error) {
      (error as Error).message += ` (LACUNA_SEED=${seed})`;
      throw error;
    }
    await history.graph.close();
  }
});
