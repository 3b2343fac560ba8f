/**
 * A process that makes a backup is killed at every step: when QEMU has carried out a command that changes something and
 * before the process knows, which is also before it can send the next one, and between its own phases. Recovering must leave nothing behind, and the next backup must be right and no
 * larger than it must be.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Fetch, Machine } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import { DISK_BYTES, fetchModes, GRANULE, LiveMachine } from '../../support/live-machine.js';
import { firstSeed } from '../../support/long-run.js';
import { usePeers } from '../../support/peers.js';

const CHILD = fileURLToPath(new URL('backup-child.mjs', import.meta.url));
const PHASES = ['loaded', 'begun', 'read', 'view ended', 'recorded', 'finished'];

const peers = usePeers('suite');

interface Manifest {
  readonly generation: string;
  readonly images: Readonly<Record<string, string>>;
}

/** Places that not every run has: how often QEMU is asked, and told to take something away, before it is gone, differs. */
const AGAIN = /^after (job-cancel|job-dismiss|blockdev-del|block-export-del|nbd-server-stop) /;

/** Each command by its name and how many of that name came before it: how many others there are differs from run to run. */
function placesOf(commands: readonly string[]): string[] {
  const counts = new Map<string, number>();
  return commands.map((name) => {
    const count = counts.get(name) ?? 0;
    counts.set(name, count + 1);
    return `after ${name} ${count}`;
  });
}

/** A machine, what backups of it have stored, and what they must hold. */
class Chain {
  readonly store: string;
  readonly live: LiveMachine;
  readonly #fetch: Fetch;
  #hasBegun = false;
  readonly #random = new Random(firstSeed());
  /** The content of the disks at the last transaction, whoever began it. */
  #atTransaction: Buffer[] = [];
  /** The content of the disks when the backup in the manifest was made. */
  #recorded: Buffer[] = [];
  #generation: string | undefined;
  /** Granules of each disk that were written after that backup and before the last transaction. */
  readonly #dirty: Set<number>[];

  constructor(live: LiveMachine, fetch: Fetch) {
    this.live = live;
    this.#fetch = fetch;
    this.#dirty = live.names.map(() => new Set());
    this.store = join(live.folder, '..', 'store');
    mkdirSync(this.store);
  }

  get manifest(): Manifest | undefined {
    const path = join(this.store, 'manifest.json');
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : undefined;
  }

  async write(): Promise<void> {
    for (const guest of this.live.guests) await guest.scribble(this.#random, 2);
  }

  noteTransaction(): void {
    this.#atTransaction = this.live.guests.map(({ content }) => Buffer.from(content));
    for (const [index, { written }] of this.live.guests.entries()) {
      for (const offset of written) this.#dirty[index].add(offset);
      written.clear();
    }
  }

  /** Runs one backup in a child, which `kills` may end at a command or phase; false if it was done before. */
  async runChild(kills: (place: string) => boolean): Promise<boolean> {
    const { options, choices: disks } = this.live;
    const backup = { fetch: this.#fetch };
    const given = JSON.stringify({
      ...{ machine: options, disks, store: this.store, size: DISK_BYTES, backup },
    });
    this.#hasBegun = false;
    const child = spawn(process.execPath, [CHILD, given], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exited = once(child, 'exit');
    let isKilled = false;
    const pass = (place: string) => {
      if (isKilled || !kills(place)) return;
      isKilled = true;
      child.kill('SIGKILL');
      throw new Error('the child is dead');
    };
    this.live.proxy.reset({
      before: async ({ name }) => {
        await this.write();
        // The first one makes the point in time; where QEMU pushes, another one begins its jobs.
        if (name !== 'transaction' || this.#hasBegun) return;
        this.#hasBegun = true;
        this.noteTransaction();
      },
      after: () => pass(placesOf(this.live.proxy.passed).at(-1)!),
    });
    answerPhases(child, pass);
    const [code] = await exited;
    expect(code).toBe(isKilled ? null : 0);
    this.live.proxy.hooks = {};
    return isKilled;
  }

  /** What the manifest names must be what the disks held. */
  checkRecorded(): void {
    const { manifest } = this;
    if (manifest === undefined) return;
    if (manifest.generation !== this.#generation) {
      this.#generation = manifest.generation;
      this.#recorded = this.#atTransaction;
      for (const dirty of this.#dirty) dirty.clear();
    }
    for (const [index, name] of this.live.names.entries()) {
      expect(readFileSync(manifest.images[name]).equals(this.#recorded[index]), name).toBe(true);
    }
  }

  /** Another process cleans up, and makes the next backup. */
  async recoverAndBackUp(): Promise<void> {
    await using machine = await this.live.connect();
    const generation = this.manifest?.generation;
    const { warnings, unknown, running } = await machine.recover({
      generation: generation ?? null,
    });
    expect({ warnings, unknown, running }).toEqual({ warnings: [], unknown: [], running: [] });
    expect(await this.live.leftovers()).toEqual(this.live.bitmapsOf(generation));
    await this.#backUp(machine);
  }

  async #backUp(machine: Machine): Promise<void> {
    const { manifest: old } = this;
    this.noteTransaction();
    const most = this.#dirty.map(({ size }) => size * GRANULE);
    const { choices: disks } = this.live;
    const session = await machine.backup({ disks, base: old?.generation, fetch: this.#fetch });
    const images: Record<string, string> = {};
    for (const [index, disk] of session.disks.entries()) {
      expect(disk.mode).toBe(old === undefined ? 'full' : 'incremental');
      const image =
        old === undefined ? Buffer.alloc(DISK_BYTES) : readFileSync(old.images[disk.name]);
      let moved = 0;
      for await (const { offset, length, data } of disk.extents()) {
        image.set(data ?? Buffer.alloc(length), offset);
        moved += length;
      }
      if (old !== undefined) expect(moved).toBeLessThanOrEqual(most[index]);
      images[disk.name] = join(this.store, `${session.point.generation}-${disk.name}`);
      writeFileSync(images[disk.name], image);
    }
    await session.finish(({ generation }) =>
      writeFileSync(join(this.store, 'manifest.json'), JSON.stringify({ generation, images })),
    );
    this.checkRecorded();
  }
}

test.each(fetchModes())(
  'a backup by %s that is killed at any step leaves nothing that is not found, and loses nothing',
  async (fetch) => {
    const live = await LiveMachine.start(peers, { disks: 2 });
    const chain = new Chain(live, fetch);
    await chain.write();
    await chain.recoverAndBackUp();
    for (const place of PHASES) {
      await chain.write();
      expect(await chain.runChild((here) => here === place), place).toBe(true);
      chain.checkRecorded();
      await chain.recoverAndBackUp();
    }
    // One that nobody kills, for the list of its commands.
    expect(await chain.runChild(() => false)).toBe(false);
    const commands = [...live.proxy.passed];
    const changes = placesOf(commands).filter((place) => !place.startsWith('after query-'));
    expect(changes.length).toBeGreaterThan(15);
    for (const place of changes) {
      const isKilled = await chain.runChild((here) => here === place);
      expect(isKilled || AGAIN.test(place), place).toBe(true);
      chain.checkRecorded();
      await chain.recoverAndBackUp();
    }
    await live.stop();
  },
);

function answerPhases(child: ChildProcess, pass: (place: string) => void): void {
  createInterface({ input: child.stdout! }).on('line', (phase) => {
    try {
      pass(phase);
    } catch {
      return;
    }
    child.stdin!.write('\n');
  });
  child.stdin!.on('error', () => {});
}
