/**
 * Mirrors of a disk that a guest writes to all the time end by chance: as they should, killed at any command, with their
 * connection cut, or with QEMU killed. Each replica that is called equal is; every other one is caught up, or refused.
 */
import { existsSync } from 'node:fs';
import type { MirrorOptions } from 'lacuna/qemu';
import { Random } from 'lacuna/testing';
import { expect, test } from 'vitest';
import type { Relay } from '../../support/live-machine.js';
import { firstSeed, runsOr } from '../../support/long-run.js';
import { MirroredMachine } from '../../support/mirrored-machine.js';
import { usePeers } from '../../support/peers.js';

const peers = usePeers('suite');
const FATES = ['end', 'kill', 'cut', 'end', 'kill', 'qemu'] as const;
const MIRRORS = 4;
/** Beside each mirror: where a guest never stops, a busy machine may never get in step with it. */
const MOST_WRITES = 500;

class Life {
  readonly #machine: MirroredMachine;
  readonly #random: Random;
  #from: Partial<MirrorOptions> = { bitmap: 'b0' };
  #isWriting = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(machine: MirroredMachine, random: Random) {
    this.#machine = machine;
    this.#random = random;
  }

  async live(): Promise<void> {
    await this.#machine.guest.scribble(this.#random, 10);
    for (let i = 0; i < MIRRORS; i++) await this.#mirror(this.#random.pick(FATES));
    await this.#mirror('end');
  }

  async #mirror(fate: (typeof FATES)[number]): Promise<void> {
    const { live } = this.#machine;
    const last = this.#random.below(30);
    let relay: Relay | undefined;
    this.#write();
    const child = this.#machine.spawn(this.#from);
    live.proxy.reset({
      before: async ({ name }) => {
        if (fate !== 'cut') return;
        await this.#machine.relay(name, (one) => {
          relay = one;
        });
      },
      after: ({ index }) => {
        if (fate !== 'kill' || index !== last) return;
        child.kill('SIGKILL');
        throw new Error('the child is dead');
      },
    });
    if (fate === 'kill') await Promise.race([child.isIn('in step').catch(() => {}), child.exited]);
    else await child.isIn('in step');
    if (fate === 'kill') child.kill('SIGKILL');
    if (fate === 'cut') relay!.stop();
    // What is written behind the end is for the next one.
    if (fate === 'end' || fate === 'qemu') await this.#stopWriting();
    if (fate === 'qemu') {
      await live.stop('SIGKILL');
      child.kill('SIGKILL');
    }
    child.stop();
    const { code, errors } = await child.exited;
    await this.#stopWriting();
    await this.#judge(fate, code, errors);
  }

  async #judge(fate: string, code: number | null, errors: string): Promise<void> {
    const { live, guest } = this.#machine;
    if (fate !== 'qemu') live.proxy.reset();
    if (fate === 'end') {
      expect(errors).toBe('');
      expect(code).toBe(0);
      await this.#machine.expectReplica(guest.content, fate);
    } else expect(code, `${fate}: ${errors}`).not.toBe(0);
    if (fate === 'cut') expect(errors).toContain('ERR_MIRROR_LOST');
    if (this.#isNoted(fate)) this.#from = {};
    if (fate !== 'qemu') return;
    await live.start();
    // What was to be copied as a whole, still is.
    if (this.#machine.state.bitmap === null) return;
    const refused = await this.#machine.spawn(this.#from).exited;
    expect(refused.errors).toMatch(/ERR_BITMAP_(INCONSISTENT|UNKNOWN)/);
    this.#from = { full: true };
  }

  /** Whether the state says what the next mirror begins from; one that was killed early has not said so yet. */
  #isNoted(fate: string): boolean {
    const { replica } = this.#machine;
    if (fate === 'end') return true;
    if (!existsSync(`${replica}.replica`)) return false;
    return !this.#from.full || this.#machine.state.bitmap === null;
  }

  #write(): void {
    this.#isWriting = true;
    // One of its own, or how far it comes would decide how the next mirror ends.
    const random = new Random(this.#random.below(2 ** 31));
    this.#writing = (async () => {
      for (let n = 0; this.#isWriting && n < MOST_WRITES; n++) {
        await this.#machine.guest.scribble(random, 1);
      }
    })();
  }

  async #stopWriting(): Promise<void> {
    this.#isWriting = false;
    await this.#writing;
  }
}

test('replicas are equal at the end, or refused, however their mirrors end', async () => {
  const first = firstSeed();
  for (let seed = first; seed < first + runsOr(1); seed++) {
    const random = new Random(seed);
    const machine = await MirroredMachine.start(peers, random.pick(['raw', 'qcow2']));
    try {
      await new Life(machine, random).live();
    } catch (error) {
      (error as Error).message += ` (LACUNA_SEED=${seed})`;
      throw error;
    }
    await machine.live.stop();
  }
});
