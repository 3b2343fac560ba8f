import type { ByteSink } from '#dist/nbd/stream/byte-sink.js';

/** Delivers bytes as a socket would: in pieces of the given sizes, into the buffer that the sink names. */
export function feed(
  sink: Pick<ByteSink, 'buffer' | 'received'>,
  bytes: Uint8Array,
  sizes: readonly number[] = [Number.POSITIVE_INFINITY],
): void {
  let at = 0;
  let turn = 0;
  while (at < bytes.length) {
    const room = sink.buffer();
    if (room.length === 0) throw new Error('the sink has no room: a socket would fail');
    const count = Math.min(room.length, bytes.length - at, sizes[turn++ % sizes.length]);
    room.set(bytes.subarray(at, at + count));
    at += count;
    sink.received(count);
  }
}
