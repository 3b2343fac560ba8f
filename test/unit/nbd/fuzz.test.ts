import { LacunaError } from 'lacuna/errors';
import { expect, test } from 'vitest';
import { handshake } from '#dist/nbd/client/handshake/handshake.js';
import { Dialogue } from '#dist/nbd/stream/dialogue.js';
import fc from '../../support/fast-check.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { feed } from './feed.js';
import { ALLOCATION, DIRTY, Harness } from './session-harness.js';

const sizes = fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 5 });
const junk = fc.uint8Array({ maxLength: 400 });
/** Places and values to overwrite, biased to the fields that steer. */
const damage = fc.array(fc.tuple(fc.nat(), fc.constantFrom(0, 1, 2, 5, 0x7f, 0x80, 0xff)), {
  maxLength: 4,
});

function damaged(bytes: Uint8Array, changes: readonly (readonly [number, number])[]): Uint8Array {
  const copy = bytes.slice();
  for (const [at, value] of changes) copy[at % copy.length] = value;
  return copy;
}

test('no bytes crash the handshake, and every failure is a LacunaError', () => {
  const good = wire.concat(
    wire.greeting(),
    wire.ack(8),
    wire.grantContext(1, 'base:allocation'),
    wire.ack(10),
    wire.exportInfo(4096, 1),
    wire.ack(7),
  );
  fc.assert(
    fc.property(fc.nat(good.length), damage, junk, sizes, (cut, changes, tail, pieces) => {
      const bytes = wire.concat(damaged(good, changes).subarray(0, cut), tail);
      let ended = false;
      const dialogue: Dialogue<unknown> = new Dialogue(
        handshake({ export: '', contexts: [], extended: false }),
        {
          send: () => {},
          secure: () => dialogue.secured(),
          done: () => {
            ended = true;
          },
          failed: (error) => {
            expect(error).toBeInstanceOf(LacunaError);
            ended = true;
          },
        },
      );
      dialogue.start();
      for (let at = 0; at < bytes.length && !ended; at++)
        feed(dialogue, bytes.subarray(at, at + 1), pieces);
      if (!ended) dialogue.closed(new LacunaError('ERR_NBD_DISCONNECTED', 'gone'));
      expect(ended).toBe(true);
    }),
    { numRuns: 3000 },
  );
});

test('no bytes crash the transmission, write outside a target, or leave a request open', async () => {
  await fc.assert(
    fc.asyncProperty(damage, junk, sizes, fc.boolean(), async (changes, tail, pieces, large) => {
      const harness = new Harness();
      const length = large ? 40_000 : 64;
      const memory = new Uint8Array(length + 128).fill(0xee);
      const read = await harness.read(0, memory.subarray(64, 64 + length));
      const status = await harness.status(0, 8192);
      const good = wire.concat(
        wire.dataChunk(read.cookie, 32, new Uint8Array(32), { done: false }),
        wire.statusChunk(
          status.cookie,
          ALLOCATION,
          [
            [512, 0],
            [512, 3],
          ],
          { done: false },
        ),
        wire.holeChunk(read.cookie, 0, 32, { done: false }),
        wire.errorChunk(read.cookie, 5, 'words', { done: false }),
        wire.statusChunk(status.cookie, DIRTY, [[512, 0]]),
        wire.doneChunk(read.cookie),
      );
      harness.deliver(wire.concat(damaged(good, changes), tail), pieces);
      if (harness.failures.length === 0) {
        harness.destroy(new LacunaError('ERR_NBD_DISCONNECTED', 'gone'));
      }
      for (const { promise } of [read, status]) {
        const error = await promise.then(
          () => undefined,
          (reason: unknown) => reason,
        );
        if (error !== undefined) expect(error).toBeInstanceOf(LacunaError);
      }
      expect(harness.session.pending).toBe(0);
      expect(memory.subarray(0, 64).every((byte) => byte === 0xee)).toBe(true);
      expect(memory.subarray(64 + length).every((byte) => byte === 0xee)).toBe(true);
    }),
    { numRuns: 1500 },
  );
});
