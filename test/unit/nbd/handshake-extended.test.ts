import { expect, test } from 'vitest';
import { handshake } from '#dist/nbd/client/handshake/handshake.js';
import { askInfo, ExportInformation, type Told } from '#dist/nbd/client/handshake/information.js';
import type { Conversation } from '#dist/nbd/stream/dialogue.js';
import { Option, OptionError } from '#dist/nbd/wire/constants.js';
import { encodeOptionReply } from '#dist/nbd/wire/option-replies.js';
import * as wire from '../../support/hostile-nbd-wire.js';
import { talk as converse } from './conversation-harness.js';

const NO = (option: number) => wire.optionError(option, OptionError.unsupported);

function talk<T>(conversation: Conversation<T>, bytes: Uint8Array) {
  const { sent, result, error } = converse(conversation, bytes);
  const options = sent.filter(({ length }) => length > 4);
  return { result, error, asked: options.map(({ buffer }) => new DataView(buffer).getUint32(8)) };
}

const connecting = (extended?: boolean) => handshake({ export: '', contexts: [], extended });
const FLAGS = 1 | (1 << 12);

test('extended headers stand in for structured replies', () => {
  const grant = wire.grantContext(3, 'base:allocation');
  const bytes = [wire.greeting(), wire.ack(11), grant, wire.ack(10), wire.exportInfo(512, FLAGS)];
  const { result, asked } = talk(connecting(), wire.concat(...bytes, wire.ack(7)));
  expect(result).toMatchObject({ extended: true, structured: true, blockSizesTold: false });
  expect(asked).toEqual([Option.extendedHeaders, Option.setMetaContext, Option.go]);
});

test('a server that does not know them is asked for structured replies', () => {
  const bytes = [wire.greeting(), NO(11), NO(8), wire.exportInfo(512, 1), wire.ack(7)];
  const { result, asked } = talk(connecting(), wire.concat(...bytes));
  expect(result).toMatchObject({ extended: false, structured: false });
  expect(asked).toEqual([Option.extendedHeaders, Option.structuredReply, Option.go]);
});

test('they are not asked for where the caller does not want them', () => {
  const { asked } = talk(connecting(false), wire.greeting());
  expect(asked).toEqual([Option.structuredReply]);
});

test('with them GO cannot be replaced by EXPORT_NAME', () => {
  const bytes = wire.concat(wire.greeting(), wire.ack(11), wire.ack(10), NO(7));
  const { error, asked } = talk(connecting(), bytes);
  expect(error).toMatchObject({ code: 'ERR_NBD_UNSUPPORTED' });
  expect(asked).not.toContain(Option.exportName);
});

const info = (payload: Uint8Array) => encodeOptionReply(Option.info, 3, payload);
const listed = (id: number, name: string) =>
  encodeOptionReply(
    Option.listMetaContext,
    4,
    wire.concat(wire.numbers([4, id]), Buffer.from(name)),
  );

test('INFO tells all there is, and nothing is used', () => {
  const bytes = wire.concat(
    ...[wire.greeting(), wire.ack(11), listed(0, 'base:allocation'), listed(0, 'x:y')],
    ...[wire.ack(9), info(wire.concat(wire.numbers([2, 1]), Buffer.from('disk')))],
    info(wire.concat(wire.numbers([2, 2]), Buffer.from('words'))),
    info(wire.numbers([2, 3], [4, 512], [4, 4096], [4, 2 ** 20])),
    ...[info(wire.numbers([2, 0], [8, 2 ** 40], [2, FLAGS])), wire.ack(Option.info)],
  );
  const { result, asked } = talk(askInfo({ export: '', tls: false }), bytes);
  expect(asked).toEqual([11, Option.listMetaContext, Option.info, Option.abort]);
  const told = new ExportInformation(result as Told);
  expect(told).toMatchObject({ size: 2 ** 40, exportName: 'disk', description: 'words' });
  expect(told).toMatchObject({ extended: true, canChooseContexts: true, requiredBlock: 512 });
  expect(told.contexts).toEqual(['base:allocation', 'x:y']);
  expect(told.maximumLength).toBe(2 ** 53 - 4096);
});

test('INFO of an export that is not there is refused by its name', () => {
  const unknown = wire.optionError(Option.info, OptionError.unknown);
  const bytes = wire.concat(wire.greeting(), NO(11), NO(8), unknown, NO(Option.list));
  const { error } = talk(askInfo({ export: 'x', tls: false }), bytes);
  expect(error).toMatchObject({ code: 'ERR_DEVICE_OPEN' });
  expect(error?.message).toContain('"x"');
});
