import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { createQcow2, createRawFile, openDevice } from 'lacuna';
import type { MirrorOptions } from 'lacuna/qemu';
import { expect } from 'vitest';
import { DISK_BYTES, LiveMachine, type LiveOptions, Relay } from './live-machine.js';
import type { Peers } from './peers.js';

const CHILD = fileURLToPath(new URL('../integration/qemu/mirror-child.mjs', import.meta.url));

/** A machine of one disk with a bitmap `b0`, and a replica that holds what the disk held when it began. */
export class MirroredMachine {
  readonly live: LiveMachine;
  /** The file of the replica. */
  readonly replica: string;

  static async start(
    peers: Peers,
    format: 'qcow2' | 'raw' = 'raw',
    options: LiveOptions = {},
  ): Promise<MirroredMachine> {
    const live = await LiveMachine.start(peers, options);
    const replica = `${live.file('replica')}.${format}`;
    if (format === 'raw') await createRawFile(replica, DISK_BYTES);
    else await createQcow2(replica, { size: DISK_BYTES });
    await live.other.execute('block-dirty-bitmap-add', {
      node: 'vda',
      name: 'b0',
      persistent: true,
    });
    return new MirroredMachine(live, replica);
  }

  /** Folders of sessions that were there before the last mirror began. */
  #older: ReadonlySet<string> = new Set();

  private constructor(live: LiveMachine, replica: string) {
    this.live = live;
    this.replica = replica;
  }

  get guest() {
    return this.live.guests[0];
  }

  get options(): MirrorOptions {
    return { disk: { node: 'vda' }, target: this.replica };
  }

  get state(): { phase: string; bitmap: string | null; durable?: { writes: number } } {
    return JSON.parse(readFileSync(`${this.replica}.replica`, 'utf8'));
  }

  /** Fails unless the replica holds this. */
  async expectReplica(content: Uint8Array, what: string): Promise<void> {
    await using device = await openDevice(this.replica);
    const bytes = Buffer.alloc(device.size);
    await device.read(0, bytes);
    const at = bytes.findIndex((byte, i) => byte !== content[i]);
    expect(at === -1 ? 'equal' : `differs at ${at}`, what).toBe('equal');
  }

  /**
   * Lets QEMU find a relay where it looks for the server of the next mirror, and calls `relayed` with it. To be called before
   * each command.
   */
  async relay(command: string, relayed: (relay: Relay) => void): Promise<void> {
    if (command !== 'blockdev-add') return;
    // Those of a QEMU that was killed may still be there.
    const session = readdirSync(this.live.folder).find((name) => !this.#older.has(name))!;
    const socket = join(this.live.folder, session, 'out.sock');
    renameSync(socket, `${socket}.real`);
    const relay = await Relay.start(`${socket}.real`);
    renameSync(relay.path, socket);
    relayed(relay);
  }

  /** A mirror in a process of its own. */
  spawn(options: Partial<MirrorOptions>): MirrorChild {
    this.#older = new Set(readdirSync(this.live.folder));
    const given = JSON.stringify({
      machine: this.live.options,
      mirror: { ...this.options, ...options },
    });
    const child = spawn(process.execPath, [CHILD, given], { stdio: ['pipe', 'pipe', 'pipe'] });
    const lines: string[] = [];
    createInterface({ input: child.stdout }).on('line', (line) => void lines.push(line));
    let errors = '';
    child.stderr.on('data', (text) => {
      errors += text;
    });
    const exited = once(child, 'exit').then(([code, signal]) => ({ code, signal, errors }));
    return {
      lines,
      exited,
      kill: (signal) => child.kill(signal),
      stop: () => child.stdin.end(),
      isIn: (phase) => expect.poll(() => [...lines, errors].join('\n')).toContain(phase),
    };
  }
}

export interface MirrorChild {
  readonly lines: readonly string[];
  readonly exited: Promise<{ code: number | null; signal: string | null; errors: string }>;
  kill(signal: NodeJS.Signals): void;
  /** Ends the mirror as it should. */
  stop(): void;
  /** Resolves when it has come so far. */
  isIn(phase: string): Promise<void>;
}
