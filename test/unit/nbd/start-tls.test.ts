import type { LacunaError } from 'lacuna/errors';
import { describe, expect, test } from 'vitest';
import { handshake } from '#dist/nbd/client/handshake/handshake.js';
import { listExports } from '#dist/nbd/client/handshake/list.js';
import { Dialogue } from '#dist/nbd/stream/dialogue.js';
import { Option, OptionError } from '#dist/nbd/wire/constants.js';
import { encodeOptionReply } from '#dist/nbd/wire/option-replies.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { feed } from './feed.js';

/** What was asked, as option numbers; `TLS` where the stream goes over to it. */
function begin(kind: 'connect' | 'list' = 'connect') {
  const asked: (number | 'TLS')[] = [];
  const end: { result?: unknown; error?: LacunaError } = {};
  const conversation = kind === 'list' ? listExports({ tls: true }) : connecting();
  const dialogue = new Dialogue<unknown>(conversation, {
    send: (bytes) => {
      if (bytes.length > 4) asked.push(new DataView(bytes.buffer).getUint32(8));
    },
    secure: () => asked.push('TLS'),
    done: (result) => {
      end.result = result;
    },
    failed: (error) => {
      end.error = error as LacunaError;
    },
  });
  dialogue.start();
  return { dialogue, asked, end };
}

const connecting = () => handshake({ export: '', contexts: [], tls: true, extended: false });
const NO = (option: number) => wire.optionError(option, OptionError.unsupported);
const ACK = wire.ack(Option.startTls);

describe('STARTTLS', () => {
  test('is the first option, and all others come behind TLS', () => {
    const { dialogue, asked, end } = begin();
    feed(dialogue, wire.concat(wire.greeting(), ACK));
    expect(asked).toEqual([Option.startTls, 'TLS']);
    dialogue.secured();
    feed(dialogue, wire.concat(NO(8), wire.exportInfo(4096, 1), wire.ack(Option.go)));
    expect(asked.slice(2)).toEqual([Option.structuredReply, Option.go]);
    expect(end.result).toMatchObject({ size: 4096 });
  });

  test('comes first in a list of exports too', () => {
    const { dialogue, asked, end } = begin('list');
    feed(dialogue, wire.concat(wire.greeting(), ACK));
    expect(asked).toEqual([Option.startTls, 'TLS']);
    dialogue.secured();
    feed(dialogue, wire.ack(Option.list));
    expect(end.result).toEqual([]);
  });

  test.each([
    ['one byte', new Uint8Array(1)],
    ['an answer to the next option', wire.ack(Option.structuredReply)],
    ['a whole export', wire.concat(wire.exportInfo(4096, 1), wire.ack(Option.go))],
  ])('with %s in plain behind its answer is a protocol error', (_, injected) => {
    const { dialogue, end } = begin();
    feed(dialogue, wire.concat(wire.greeting(), ACK));
    expect(() => feed(dialogue, injected)).toThrow(
      expect.objectContaining({ code: 'ERR_NBD_PROTOCOL' }) as unknown as Error,
    );
    expect(end.result).toBeUndefined();
  });

  test.each<[string, Uint8Array, string]>([
    ['unsupported', NO(Option.startTls), 'does not offer TLS'],
    ['forbidden', wire.optionError(Option.startTls, OptionError.policy), 'does not offer TLS'],
    ['invalid', wire.optionError(Option.startTls, OptionError.invalid, 'why'), '"why"'],
    ['answered strangely', encodeOptionReply(Option.startTls, 2, new Uint8Array(4)), 'reply 2'],
    [
      'acknowledged with more',
      encodeOptionReply(Option.startTls, 1, new Uint8Array(4)),
      'NBD_OPT_STARTTLS',
    ],
  ])('that is %s ends it, in plain is not gone on', (_, answer, words) => {
    const { dialogue, asked, end } = begin();
    feed(dialogue, wire.concat(wire.greeting(), answer));
    expect(end.error).toMatchObject({ code: 'ERR_NBD_TLS' });
    expect(end.error?.message).toContain(words);
    expect(asked).toEqual([Option.startTls]);
  });

  test('is never followed by EXPORT_NAME, nor is a server without options used', () => {
    const { dialogue, asked, end } = begin();
    feed(dialogue, wire.concat(wire.greeting(), ACK));
    dialogue.secured();
    feed(dialogue, wire.concat(NO(Option.structuredReply), NO(Option.go)));
    expect(end.error).toMatchObject({ code: 'ERR_NBD_UNSUPPORTED' });
    expect(asked).not.toContain(Option.exportName);
    const old = begin();
    feed(old.dialogue, wire.greeting(0));
    expect(old.end.error).toMatchObject({ code: 'ERR_NBD_TLS' });
    expect(old.asked).toEqual([]);
  });
});
