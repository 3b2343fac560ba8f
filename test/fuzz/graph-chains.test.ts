/**
 * Random histories of chains of images, whose layers jobs bring up and put down while a guest writes, beside an array of bytes that
 * says what the guest must read. After every step it reads that; whenever the graph is closed, the images show it and are sound.
 */

import { rmSync } from 'node:fs';
import { checkQcow2, createQcow2, openDevice } from 'lacuna';
import { type CommitJob, Graph, type GraphAction, type Root } from 'lacuna/graph';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import { firstSeed, runsOr } from '../support/long-run.js';
import { workInNewFolders } from '../support/temporary-folder.js';

workInNewFolders();

const G = 65_536;
const GRANULES = 8;
const SIZE = GRANULES * G;
const STEPS = 40;
const HISTORIES = runsOr(3);
const MOST_LAYERS = 5;

/** What may be said of a step that does not go with what else goes on. */
const REFUSALS = new Set([
  'ERR_GRAPH_CONFLICT',
  'ERR_GRAPH_BUSY',
  'ERR_GRAPH_UNKNOWN',
  'ERR_JOB_STOPPED',
  'ERR_BITMAP_BUSY',
]);

type Beginning = Extract<GraphAction, { type: 'stream' | 'commit' }>;

/** What a job is told beside what it is. */
function own<One extends Beginning>({ type: _, ...options }: One): Omit<One, 'type'> {
  return options;
}

type Running = ReturnType<Graph['stream']> | CommitJob;

class History {
  readonly log: string[] = [];
  readonly #random: Random;
  readonly #disk = new Uint8Array(SIZE);
  /** Granules that were written since each bitmap was added. */
  readonly #written = new Map<string, Set<number>>();
  /** Granules that are being written. */
  readonly #busy = new Set<number>();
  readonly #jobs = new Set<Running>();
  readonly #failures: unknown[] = [];
  /** Paths, from the bottom up. */
  #files: string[] = [];
  #graph = new Graph({ drainLimitMs: 2 ** 30 });
  #guest!: Root;
  #count = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  async begin(): Promise<void> {
    this.#files = [await this.#create(SIZE)];
    await this.#addLayers();
    await this.#open();
  }

  async step(): Promise<void> {
    const kinds = [
      'write',
      'write',
      'stream',
      'commit',
      'steer',
      'steer',
      'filter',
      'bitmap',
      'populate',
    ];
    const kind = this.#random.pick([...kinds, 'snapshot', 'rest'] as const);
    this.log.push(kind);
    const others = this.#random.below(2) === 0 ? [] : [this.write()];
    await Promise.all([this[kind as 'write']().catch(refusal), ...others]);
    if (this.#failures.length > 0) throw this.#failures[0];
  }

  async write(): Promise<void> {
    const random = this.#random;
    // Of two that are under way in one place, nobody knows which comes last.
    const free = Array.from({ length: GRANULES }, (_, i) => i).filter((i) => !this.#busy.has(i));
    const granule = random.pick(free);
    this.#busy.add(granule);
    const whole = random.below(3) === 0;
    const from = granule * G + (whole ? 0 : random.below(G - 1));
    const length = whole ? G : 1 + random.below((granule + 1) * G - from);
    const value = random.below(4) === 0 ? 0 : 1 + random.below(250);
    for (const granules of this.#written.values()) granules.add(granule);
    const bytes = new Uint8Array(length).fill(value);
    this.#disk.set(bytes, from);
    if (value === 0 && whole && random.below(2) === 0) await this.#guest.discard(from, length);
    else if (value === 0) await this.#guest.zero(from, length);
    else await this.#guest.write(from, bytes);
    this.#busy.delete(granule);
  }

  async stream(): Promise<void> {
    const layers = this.#layers();
    const at = this.#random.below(layers.length);
    const base = this.#random.pick([undefined, ...layers.slice(at + 1)]);
    await this.#start({ type: 'stream', node: layers[at], ...(base && { base }) });
  }

  async commit(): Promise<void> {
    const layers = this.#layers();
    if (layers.length < 2) return;
    const at = this.#random.below(layers.length - 1);
    const base = this.#random.pick(layers.slice(at + 1));
    await this.#start({ type: 'commit', node: layers[at], base });
  }

  async populate(): Promise<void> {
    const [node] = this.#layers();
    const { bitmaps } = this.#graph.node(node);
    if (bitmaps.length === 0) return;
    const { name: bitmap } = this.#random.pick(bitmaps);
    const targets = [{ node, bitmap }];
    await this.#graph.populate({ from: 'allocation', sources: [{ node }], targets });
  }

  async steer(): Promise<void> {
    if (this.#jobs.size === 0) return;
    const job = this.#random.pick([...this.#jobs]);
    const deed = this.#random.pick(['pause', 'resume', 'stop', 'complete', 'complete', 'cancel']);
    this.log.push(deed);
    if (deed === 'pause' || deed === 'resume' || deed === 'stop') job[deed]();
    else {
      job.resume();
      await ('complete' in job ? job[deed as 'complete']() : job);
    }
  }

  async filter(): Promise<void> {
    const filters = this.#graph.nodes.filter(({ driverName }) => driverName === 'delay');
    if (filters.length > 1) return this.#graph.removeFilter(this.#random.pick(filters));
    const above = this.#random.pick(this.#layers());
    const name = `filter-${++this.#count}`;
    const filter = { driver: 'delay', milliseconds: 0, 'node-name': name } as const;
    await this.#graph.insertFilter({ filter, above });
  }

  async bitmap(): Promise<void> {
    const [node] = this.#layers();
    if (this.#written.size > 3) return;
    const name = `bitmap-${++this.#count}`;
    await this.#graph.changeBitmaps({
      [node]: [{ type: 'add', name, granularity: G, persistent: true }],
    });
    this.#written.set(name, new Set());
  }

  async snapshot(): Promise<void> {
    const layers = this.#layers();
    if (layers.length >= MOST_LAYERS) return;
    const [node] = layers;
    const path = await this.#create(SIZE, this.#pathOf(node));
    const overlay = { 'node-name': `layer-${++this.#count}`, ...image(path) };
    const bitmaps = this.#random.pick(['copy', 'none'] as const);
    await this.#graph.snapshot({ disks: [{ node, overlay, bitmaps }] });
  }

  /** The machine is off: the images are what they say, and get other layers. */
  async rest(): Promise<void> {
    const path = this.#pathOf(this.#layers()[0]);
    for (const job of this.#jobs) job.stop();
    await Promise.all([...this.#jobs].map((job) => job.catch(() => {})));
    await this.#graph.close();
    this.#files = await this.#checkFiles(path);
    await this.#addLayers();
    await this.#open();
  }

  async check(): Promise<void> {
    const bytes = new Uint8Array(SIZE);
    await this.#guest.read(0, bytes);
    expect(differing(bytes, this.#disk), 'what the guest reads').toEqual([]);
    const [node] = this.#layers();
    for (const [name, granules] of this.#written) {
      if (!this.#graph.node(node).bitmaps.some((info) => info.name === name)) continue;
      const bitmap = await this.#graph.node(node).bitmap(name);
      const missing = [...granules].filter((granule) => !bitmap.get(granule * G));
      expect(missing, `bitmap ${name}`).toEqual([]);
    }
  }

  async end(): Promise<void> {
    this.log.push('end');
    await this.rest();
    await this.#graph.close();
  }

  /** By itself, or in a transaction with a bitmap. */
  async #start(action: Beginning): Promise<void> {
    if (this.#random.below(2) === 0 || this.#written.size > 3) {
      this.#begun(
        action.type === 'stream'
          ? this.#graph.stream(own(action))
          : this.#graph.commit(own(action)),
      );
      return;
    }
    const [node] = this.#layers();
    const name = `bitmap-${++this.#count}`;
    const add = { type: 'add', name, granularity: G, persistent: true } as const;
    const bitmaps = { type: 'bitmaps', node, actions: [add] } as const;
    const { jobs } = await this.#graph.transaction([bitmaps, action]);
    this.#begun(jobs[0] as Running);
    this.#written.set(name, new Set());
  }

  #begun(job: Running): void {
    this.#jobs.add(job);
    job.then(
      () => this.#jobs.delete(job),
      (error) => {
        this.#jobs.delete(job);
        if (!isRefusal(error)) this.#failures.push(error);
      },
    );
  }

  /** Names of the images, from the top down. */
  #layers(): string[] {
    const below = (name: string): string[] => {
      const edges = this.#graph.edges.filter(({ parent }) => parent === name);
      const backing = edges.find(({ child }) => child === 'backing');
      const isImage = this.#graph.node(name).driverName === 'qcow2';
      const next = isImage ? backing : edges.find(({ child }) => child === 'file');
      return [...(isImage ? [name] : []), ...(next === undefined ? [] : below(next.node))];
    };
    return below(this.#guest.node.name);
  }

  #pathOf(node: string): string {
    return this.#graph.toJSON().nodes.find(({ name }) => name === node)!.device;
  }

  async #create(size: number, over?: string): Promise<string> {
    const path = `${++this.#count}.qcow2`;
    const backing = over === undefined ? {} : { backing: { filename: over, format: 'qcow2' } };
    await createQcow2(path, { size, ...backing });
    return path;
  }

  /** New layers on top; one may be shorter, and hides what is below behind its end. */
  async #addLayers(): Promise<void> {
    if (this.#files.length >= MOST_LAYERS - 1) return;
    if (this.#random.below(2) === 0) {
      const granules = 1 + this.#random.below(GRANULES - 1);
      this.#files.push(await this.#create(granules * G, this.#files.at(-1)!));
      this.#disk.fill(0, granules * G);
      // What is behind the end is zero from then on, of which no bitmap knows.
      this.#written.clear();
    }
    this.#files.push(await this.#create(SIZE, this.#files.at(-1)!));
  }

  async #open(): Promise<void> {
    this.#graph = new Graph({ drainLimitMs: 2 ** 30 });
    const top = this.#files.at(-1)!;
    await this.#graph.add({ 'node-name': 'top', ...image(top) }, { writable: true });
    this.#guest = await this.#graph.addExport({ name: 'guest', node: 'top', writable: true });
  }

  /** @returns the files of the chain, from the bottom up; all others are removed. */
  async #checkFiles(path: string): Promise<string[]> {
    const device = await openDevice(path);
    const bytes = new Uint8Array(SIZE);
    await device.read(0, bytes);
    const files = [device.name, ...(device.details?.chain.map(({ name }) => name) ?? [])].reverse();
    await device.close();
    expect(differing(bytes, this.#disk), `what ${path} shows`).toEqual([]);
    for (const file of files) {
      expect((await checkQcow2(file)).corruptions, `corruptions of ${file}`).toBe(0);
    }
    for (let number = 1; number <= this.#count; number++) {
      const isIn = files.some((file) => file.endsWith(`/${number}.qcow2`));
      if (!isIn) rmSync(`${number}.qcow2`, { force: true });
    }
    return files;
  }
}

function image(filename: string) {
  return { driver: 'qcow2', file: { driver: 'file', filename } } as const;
}

/** Granules. */
function differing(a: Uint8Array, b: Uint8Array): number[] {
  return Array.from({ length: GRANULES }, (_, i) => i).filter(
    (i) => Buffer.compare(a.subarray(i * G, (i + 1) * G), b.subarray(i * G, (i + 1) * G)) !== 0,
  );
}

function isRefusal(error: unknown): boolean {
  return REFUSALS.has((error as { code?: string }).code ?? '');
}

function refusal(error: unknown): void {
  if (!isRefusal(error)) throw error;
}

test('random histories of chains show what an array of bytes says, while jobs move their layers', async () => {
  for (let seed = firstSeed(), left = HISTORIES; left > 0; seed++, left--) {
    const history = new History(seed);
    try {
      await history.begin();
      for (let step = 0; step < STEPS; step++) {
        await history.step();
        await history.check();
      }
      await history.end();
    } catch (cause) {
      const steps = history.log.slice(-25).join(', ');
      throw new Error(`LACUNA_SEED=${seed}, step ${history.log.length}: ${steps}`, { cause });
    }
  }
});
