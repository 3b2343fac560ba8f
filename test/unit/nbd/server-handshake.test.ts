import { describe, expect, test } from 'vitest';
import { Option, OptionError, OptionReply } from '#dist/nbd/wire/constants.js';
import { encodeContextQuery, encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { fakeDevice } from '../../support/fake-device.js';
import { concat, numbers } from '../../support/hostile-nbd-wire.js';
import { bitmapOf, granted, offerOf, SIZE, served, Talk } from './server-harness.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const { ack } = OptionReply;
const structured = encodeOption(Option.structuredReply);
const extended = encodeOption(Option.extendedHeaders);
const go = (name = '', infos: number[] = []) =>
  encodeOption(Option.go, encodeInfoQuery(name, infos));
const info = (name = '', infos: number[] = []) =>
  encodeOption(Option.info, encodeInfoQuery(name, infos));
const list = (name: string, ...queries: string[]) =>
  encodeOption(Option.listMetaContext, encodeContextQuery(name, queries));
const set = (name: string, ...queries: string[]) =>
  encodeOption(Option.setMetaContext, encodeContextQuery(name, queries));

const rich = () =>
  offerOf([
    served({ bitmaps: { b0: bitmapOf(SIZE), b1: bitmapOf(SIZE) } }),
    served({ name: 'zweite', description: 'die andere Platte' }),
  ]);

describe('the greeting', () => {
  test('is newstyle, fixed, without zeroes', () => {
    expect(hex(new Talk().take())).toBe('4e42444d41474943' + '49484156454f5054' + '0003');
  });

  test.each([0, 1, 2, 3])('client flags %i are fine', (flags) => {
    const talk = new Talk().greeted(flags);
    expect(talk.verdict(encodeOption(Option.list))).toBe(ack);
  });

  test.each([4, 0x80])('an unknown client flag (%i) ends the connection', (flags) => {
    expect(new Talk().greeted(flags).failure?.code).toBe('ERR_NBD_PROTOCOL');
  });

  test('whatever is no option ends the connection', () => {
    const talk = new Talk().greeted();
    talk.say(Buffer.from('GET / HTTP/1.1\r\n'));
    expect(talk.failure?.code).toBe('ERR_NBD_PROTOCOL');
    const almost = encodeOption(Option.list);
    almost[7] ^= 1;
    const other = new Talk().greeted();
    other.say(almost);
    expect(other.failure?.code).toBe('ERR_NBD_PROTOCOL');
  });
});

describe('options', () => {
  test('an option that is not known is drained and refused, and the next is understood', () => {
    const talk = new Talk().greeted();
    for (const option of [4, 12, 0xffffffff]) {
      expect(talk.ask(encodeOption(option, new Uint8Array(1000)))).toMatchObject([
        { option, type: OptionError.unsupported },
      ]);
    }
    expect(talk.verdict(encodeOption(Option.list))).toBe(ack);
  });

  test('an option that is too long is drained and refused', () => {
    const talk = new Talk().greeted();
    const length = 300 * 1024;
    expect(talk.verdict(encodeOption(Option.go, new Uint8Array(length)))).toBe(OptionError.tooBig);
    expect(talk.verdict(encodeOption(Option.list))).toBe(ack);
  });

  test('an option that is absurdly long ends the connection before anything is drained', () => {
    const talk = new Talk().greeted();
    talk.say(encodeOption(Option.go).subarray(0, 12));
    talk.say(numbers([4, 33 * 1024 * 1024]));
    expect(talk.failure?.code).toBe('ERR_NBD_PROTOCOL');
  });

  test('a flood of options ends the connection', () => {
    const talk = new Talk().greeted();
    for (let i = 0; i < 5000 && !talk.over; i++) talk.say(encodeOption(Option.list));
    expect(talk.failure?.code).toBe('ERR_NBD_PROTOCOL');
  });

  test('a client may look at every export, with three options for each', () => {
    const exports = Array.from({ length: 3000 }, (_, i) => served({ name: `disk${i}` }));
    const talk = new Talk(offerOf(exports)).greeted();
    expect(talk.verdict(encodeOption(Option.structuredReply))).toBe(OptionReply.ack);
    for (const { name } of exports) {
      const info = encodeOption(Option.info, encodeInfoQuery(name, []));
      expect(talk.verdict(info)).toBe(OptionReply.ack);
      for (const queries of [[], ['base:']]) {
        const contexts = encodeContextQuery(name, queries);
        expect(talk.verdict(encodeOption(Option.listMetaContext, contexts))).toBe(OptionReply.ack);
      }
    }
  });

  test.each([
    ['LIST', encodeOption(Option.list, new Uint8Array(1))],
    ['STARTTLS', encodeOption(Option.startTls, new Uint8Array(1))],
    ['STRUCTURED_REPLY', encodeOption(Option.structuredReply, new Uint8Array(1))],
    ['EXTENDED_HEADERS', encodeOption(Option.extendedHeaders, new Uint8Array(1))],
    ['GO without a payload', encodeOption(Option.go)],
    ['GO with half a name', encodeOption(Option.go, numbers([4, 10], [2, 0]))],
    ['GO with a name of 4 GiB', encodeOption(Option.go, numbers([4, 0xffffffff], [2, 0]))],
    ['GO with fewer infos than it says', encodeOption(Option.go, numbers([4, 0], [2, 2], [2, 1]))],
    ['GO with more infos than it says', encodeOption(Option.go, numbers([4, 0], [2, 0], [2, 1]))],
    ['INFO without a count', encodeOption(Option.info, numbers([4, 0]))],
    [
      'GO with a long name',
      encodeOption(Option.go, concat(numbers([4, 4097]), Buffer.alloc(4099))),
    ],
  ])('%s is invalid where its payload does not fit', (_, option) => {
    const talk = new Talk().greeted();
    expect(talk.verdict(option)).toBe(OptionError.invalid);
    expect(talk.verdict(encodeOption(Option.list))).toBe(ack);
  });

  test('ABORT is acknowledged, whatever comes with it, and ends', () => {
    const talk = new Talk().greeted();
    expect(talk.verdict(encodeOption(Option.abort, new Uint8Array(5)))).toBe(ack);
    expect(talk.outcome).toEqual({ type: 'end' });
  });

  test('LIST names every export, with its description behind', () => {
    const answers = new Talk(rich()).greeted().ask(encodeOption(Option.list));
    expect(answers.map(({ type }) => type)).toEqual([OptionReply.server, OptionReply.server, ack]);
    expect(hex(answers[0].payload)).toBe('00000000');
    expect(Buffer.from(answers[1].payload.subarray(4)).toString()).toBe('zweitedie andere Platte');
    expect(answers[1].payload[3]).toBe(6);
  });

  test('structured replies can be agreed on once', () => {
    const talk = new Talk().greeted();
    expect(talk.verdict(structured)).toBe(ack);
    expect(talk.verdict(structured)).toBe(OptionError.invalid);
    expect(talk.verdict(extended)).toBe(ack);
    expect(talk.verdict(extended)).toBe(OptionError.invalid);
    expect(talk.verdict(structured)).toBe(OptionError.extendedHeadersRequired);
  });
});

describe('the export', () => {
  test('GO tells size, flags and block sizes, then enters', () => {
    const talk = new Talk().greeted();
    const answers = talk.ask(go());
    expect(answers.map(({ type }) => type)).toEqual([3, 3, ack]);
    // HAS_FLAGS FLUSH FUA TRIM WRITE_ZEROES CAN_MULTI_CONN CACHE FAST_ZERO
    expect(hex(answers[0].payload)).toBe('0000' + '0000000000100000' + '0d6d');
    expect(hex(answers[1].payload)).toBe('0003' + '00000001' + '00010000' + '02000000');
    expect(talk.outcome).toMatchObject({ type: 'transmission', structured: false, contexts: [] });
  });

  test('INFO tells the same and does not enter', () => {
    const talk = new Talk().greeted();
    const answers = talk.ask(info());
    expect(talk.over).toBe(false);
    expect(talk.ask(go()).map(({ payload }) => hex(payload))).toEqual(
      answers.map(({ payload }) => hex(payload)),
    );
  });

  test('name and description are told where they are asked for; unknown infos are ignored', () => {
    const talk = new Talk(rich()).greeted();
    const texts = talk
      .ask(info('zweite', [2, 1, 9, 0xffff]))
      .map(({ payload }) => [payload[1], Buffer.from(payload.subarray(2)).toString()]);
    expect(texts).toContainEqual([1, 'zweite']);
    expect(texts).toContainEqual([2, 'die andere Platte']);
    expect(talk.ask(info('', [2])).filter(({ payload }) => payload[1] === 2)).toEqual([]);
  });

  test('one that does not exist is refused, and another can still be entered', () => {
    const talk = new Talk(rich()).greeted();
    expect(talk.verdict(go('dritte'))).toBe(OptionError.unknown);
    expect(talk.verdict(info('dritte'))).toBe(OptionError.unknown);
    expect(talk.verdict(go('zweite'))).toBe(ack);
  });

  test('flags say what can be done', () => {
    const flagsOf = (options: Parameters<typeof served>[0], ...before: Uint8Array[]) => {
      const talk = new Talk(offerOf([served(options)])).greeted();
      for (const option of before) talk.ask(option);
      return Buffer.from(talk.ask(go())[0].payload).readUInt16BE(10);
    };
    expect(flagsOf({}, structured)).toBe(0x0d6d | 0x80);
    expect(flagsOf({}, extended)).toBe(0x0d6d | 0x1080);
    expect(flagsOf({ readOnly: true })).toBe(0x050f);
    const device = fakeDevice(SIZE, { capabilities: { write: true } });
    expect(flagsOf({ device })).toBe(0x0541);
  });

  test.each([
    [4096, 4096, SIZE, [4096, 4096, 2 ** 25]],
    [512, 512, SIZE + 100, [1, 512, 2 ** 25]],
    [1, 1, SIZE, [1, 512, 2 ** 25]],
    [2 ** 17, 2 ** 30, SIZE, [65536, 2 ** 25, 2 ** 25]],
  ])('block sizes for minimum %i, preferred %i, size %i', (minimum, preferred, size, expected) => {
    const limits = { maximum: 2 ** 30, maximumZero: 2 ** 30 };
    const aligned = { zeroAlignment: minimum, discardAlignment: minimum };
    const device = fakeDevice(size, { limits: { minimum, preferred, ...limits, ...aligned } });
    const payload = Buffer.from(
      new Talk(offerOf([served({ device })])).greeted().ask(go())[1].payload,
    );
    expect([2, 6, 10].map((at) => payload.readUInt32BE(at))).toEqual(expected);
  });

  test.each([
    [1, 134],
    [3, 10],
  ])('EXPORT_NAME with client flags %i is answered with %i bytes', (flags, length) => {
    const talk = new Talk().greeted(flags);
    talk.say(encodeOption(Option.exportName));
    const answer = talk.take();
    expect(answer).toHaveLength(length);
    expect(hex(answer.subarray(0, 10))).toBe('0000000000100000' + '0d6d');
    expect(talk.outcome?.type).toBe('transmission');
  });

  test('EXPORT_NAME has no refusal, so it ends the connection', () => {
    const unknown = new Talk().greeted();
    unknown.say(encodeOption(Option.exportName, Buffer.from('x')));
    expect(unknown.failure?.code).toBe('ERR_NBD_PROTOCOL');
    const wide = new Talk().greeted();
    wide.ask(extended);
    wide.say(encodeOption(Option.exportName));
    expect(wide.failure?.code).toBe('ERR_NBD_PROTOCOL');
  });
});

describe('metadata contexts', () => {
  const talking = (...before: Uint8Array[]) => {
    const talk = new Talk(rich()).greeted();
    for (const option of before) talk.ask(option);
    return talk;
  };
  const all = ['base:allocation', 'qemu:dirty-bitmap:b0', 'qemu:dirty-bitmap:b1'];

  test('are refused without structured replies or extended headers', () => {
    expect(talking().verdict(list(''))).toBe(OptionError.invalid);
    expect(talking().verdict(set('', all[0]))).toBe(OptionError.invalid);
    expect(talking(structured).verdict(list(''))).toBe(ack);
    expect(talking(extended).verdict(list(''))).toBe(ack);
  });

  test.each([
    [[], all],
    [['base:'], all.slice(0, 1)],
    [['qemu:'], all.slice(1)],
    [['qemu:dirty-bitmap:'], all.slice(1)],
    [
      ['base:', 'qemu:dirty-bitmap:b1'],
      [all[0], all[2]],
    ],
    [['base:allocation', 'base:allocation'], all.slice(0, 1)],
    [['x-unknown:', 'base', 'qemu:dirty', '', 'base:allocation2'], []],
  ])('are listed as asked by LIST %j', (queries, names) => {
    expect(granted(talking(structured).ask(list('', ...queries)))).toEqual(names);
  });

  test.each([
    [[], []],
    [['base:', 'qemu:', 'qemu:dirty-bitmap:'], []],
    [
      ['base:allocation', 'unknown:thing', 'qemu:dirty-bitmap:b1'],
      [all[0], all[2]],
    ],
  ])('are chosen as asked by SET %j', (queries, names) => {
    const talk = talking(structured);
    expect(granted(talk.ask(set('', ...queries)))).toEqual(names);
    talk.ask(go());
    expect(talk.outcome).toMatchObject({ contexts: names.map((name) => ({ name })) });
  });

  test.each([
    ['another SET', set('', all[1]), [all[1]]],
    ['a SET of nothing', set(''), []],
    ['a SET that fails: no such export', set('dritte', all[0]), []],
    ['a SET that fails: broken', encodeOption(Option.setMetaContext, numbers([4, 0], [4, 9])), []],
    ['a SET that fails: too long', encodeOption(Option.setMetaContext, Buffer.alloc(2 ** 19)), []],
    ['a SET for another export', set('zweite', all[0]), []],
    ['a LIST, which changes nothing', list('', all[1]), [all[0]]],
  ])('are what the last message leaves of them: %s', (_, option, names) => {
    const talk = talking(structured, set('', all[0]), option);
    talk.ask(go());
    expect(talk.outcome).toMatchObject({ contexts: names.map((name) => ({ name })) });
  });

  test.each([
    ['no payload', new Uint8Array(0)],
    ['a count without queries', numbers([4, 0], [4, 1])],
    ['a count of 4 G', numbers([4, 0], [4, 0xffffffff])],
    ['bytes left over', numbers([4, 0], [4, 0], [1, 0])],
    ['a query of 4097 bytes', concat(numbers([4, 0], [4, 1], [4, 4097]), Buffer.alloc(4097))],
  ])('%s is invalid', (_, payload) => {
    const talk = talking(structured);
    expect(talk.verdict(encodeOption(Option.setMetaContext, payload))).toBe(OptionError.invalid);
    expect(talk.verdict(list('nirgends'))).toBe(OptionError.unknown);
  });
});

describe('TLS', () => {
  const { tlsRequired } = OptionError;

  test('where the server has none: STARTTLS is refused', () => {
    expect(new Talk().greeted().verdict(encodeOption(Option.startTls))).toBe(OptionError.policy);
  });

  test('where it is required, nothing else is answered', () => {
    const talk = new Talk(offerOf([served()], 'require')).greeted();
    const options = [
      info(),
      go(),
      encodeOption(Option.list),
      structured,
      extended,
      set(''),
      list(''),
    ];
    for (const option of [...options, encodeOption(77, Buffer.from('x'))]) {
      expect(talk.verdict(option)).toBe(tlsRequired);
    }
    expect(talk.ask(encodeOption(Option.startTls))).toMatchObject([{ type: ack }]);
    expect(talk.outcome).toMatchObject({ type: 'starttls' });
  });

  test('where it is required, ABORT is heard and EXPORT_NAME ends the connection', () => {
    const talk = new Talk(offerOf([served()], 'require')).greeted();
    expect(talk.verdict(encodeOption(Option.abort))).toBe(ack);
    const old = new Talk(offerOf([served()], 'require')).greeted();
    old.say(encodeOption(Option.exportName));
    expect(old.take()).toHaveLength(0);
    expect(old.failure?.code).toBe('ERR_NBD_PROTOCOL');
  });

  test('where it is offered, a client may do without', () => {
    expect(new Talk(offerOf([served()], 'on')).greeted().verdict(go())).toBe(ack);
  });

  test('cannot be started twice, and nothing from before it counts', () => {
    const talk = new Talk(offerOf([served()], 'require'), true);
    expect(talk.verdict(encodeOption(Option.startTls))).toBe(OptionError.invalid);
    expect(talk.verdict(list(''))).toBe(OptionError.invalid);
    talk.ask(go());
    expect(talk.outcome).toMatchObject({ structured: false, extended: false, contexts: [] });
  });
});

test('a handshake can arrive byte by byte', () => {
  const talk = new Talk(rich());
  const bytes = concat(numbers([4, 3]), structured, set('', 'base:allocation'), go());
  talk.say(bytes, [1]);
  expect(talk.outcome).toMatchObject({ structured: true, contexts: [{ name: 'base:allocation' }] });
});
