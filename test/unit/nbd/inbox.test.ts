import { expect, test } from 'vitest';
import { Inbox } from '#dist/nbd/stream/inbox.js';
import fc from '../../support/fast-check.js';

const LIMIT = 256;

/** A socket may fill all of the room or less of it, and a parser takes any part of what is there. */
const turn = fc.record({
  most: fc.integer({ min: 1, max: LIMIT }),
  fill: fc.double({ min: 0, max: 1, noNaN: true }),
  consume: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 3 }),
});

test('what goes in comes out in order, and there is always room', () => {
  fc.assert(
    fc.property(fc.array(turn, { maxLength: 200 }), (turns) => {
      const inbox = new Inbox(LIMIT);
      const unread: number[] = [];
      let next = 0;
      for (const { most, fill, consume } of turns) {
        const room = inbox.room(most);
        expect(room.length).toBeGreaterThan(0);
        expect(inbox.length + room.length).toBeLessThanOrEqual(Math.max(most, inbox.length + 1));
        // Asked again without a delivery, it gives the same.
        expect(inbox.room(most).byteOffset).toBe(room.byteOffset);
        const count = Math.min(Math.ceil(fill * room.length), LIMIT - unread.length);
        for (let i = 0; i < count; i++) {
          room[i] = next;
          unread.push(next);
          next = (next + 1) & 0xff;
        }
        inbox.filled(count);
        for (const part of consume) {
          const taken = Math.floor(part * inbox.length);
          const at = inbox.consume(taken);
          expect([...inbox.bytes.subarray(at, at + taken)]).toEqual(unread.splice(0, taken));
        }
        expect(inbox.length).toBe(unread.length);
      }
    }),
  );
});

test('filled to its very end, it makes room all the same', () => {
  const inbox = new Inbox(LIMIT);
  // Never empty, so that it begins anew only by moving what is unread.
  for (let i = 0; i < 100; i++) {
    inbox.filled(inbox.room(LIMIT).length);
    expect(inbox.room(1).length).toBeGreaterThan(0);
    inbox.consume(LIMIT / 2);
  }
});
