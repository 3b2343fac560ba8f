import { LacunaError } from 'lacuna/errors';
import { expect, test } from 'vitest';
import { Option } from '#dist/nbd/wire/constants.js';
import { encodeContextQuery, encodeInfoQuery, encodeOption } from '#dist/nbd/wire/options.js';
import { fakeDevice } from '../../support/fake-device.js';
import fc from '../../support/fast-check.js';
import { concat, numbers } from '../../support/hostile-nbd-wire.js';
import { stepsOr } from '../../support/long-run.js';
import {
  bitmapOf,
  extendedRequest,
  offerOf,
  optionAnswers,
  replies,
  request,
  SIZE,
  served,
  settle,
  Talk,
  Transmission,
} from './server-harness.js';

/** Inputs per machine. */
const RUNS = stepsOr(3000);
const LIMIT = { numRuns: RUNS };

const u16 = fc.oneof(fc.constantFrom(0, 1, 2, 4, 8, 16, 32, 0xffff), fc.nat(0xffff));
const u32 = fc.oneof(
  fc.constantFrom(0, 1, 511, 4096, 2 ** 20, 2 ** 25, 2 ** 31, 2 ** 32 - 1),
  fc.nat(2 ** 17),
);
const u53 = fc.oneof(u32, fc.constantFrom(SIZE - 1, SIZE, 2 ** 53 - 1), fc.maxSafeNat());
const sizes = fc.array(fc.constantFrom(1, 3, 28, 1000, 100_000), { minLength: 1, maxLength: 4 });
const junk = fc.uint8Array({ maxLength: 300 });
const name = fc.constantFrom('', 'x', 'zweite', 'a'.repeat(4096), '\u{1f4be}');
const query = fc.constantFrom('base:', 'base:allocation', 'qemu:dirty-bitmap:b', 'qemu:', '', ':');

const option = fc.oneof(
  fc.tuple(fc.nat(12), junk).map(([number, payload]) => encodeOption(number, payload)),
  fc.constantFrom(
    ...[Option.structuredReply, Option.extendedHeaders, Option.list, Option.startTls].map((each) =>
      encodeOption(each),
    ),
  ),
  fc
    .tuple(fc.constantFrom(6, 7), name, fc.array(u16, { maxLength: 5 }))
    .map(([number, text, infos]) => encodeOption(number, encodeInfoQuery(text, infos))),
  fc
    .tuple(fc.constantFrom(9, 10), name, fc.array(query, { maxLength: 5 }))
    .map(([number, text, queries]) => encodeOption(number, encodeContextQuery(text, queries))),
);

/** Overwrites bytes here and there. */
const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 });
function damaged(bytes: Uint8Array, changes: readonly (readonly [number, number])[]): Uint8Array {
  const copy = bytes.slice();
  if (copy.length > 0) for (const [at, value] of changes) copy[at % copy.length] = value;
  return copy;
}

test('no bytes crash the handshake; it answers in whole replies, and ends by name or not at all', () => {
  const bitmaps = { b: bitmapOf(SIZE, { offset: 5, length: 7 }) };
  const offers = (['off', 'on', 'require'] as const).map((tls) =>
    offerOf([served({ bitmaps }), served({ name: 'zweite', description: 'd' })], tls),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...offers),
      fc.array(option, { maxLength: 6 }),
      damage,
      junk,
      sizes,
      (offer, options, changes, tail, pieces) => {
        const talk = new Talk(offer);
        talk.take();
        const bytes = concat(numbers([4, 3]), damaged(concat(...options), changes), tail);
        talk.say(bytes, pieces);
        if (talk.failure !== undefined) expect(talk.failure).toBeInstanceOf(LacunaError);
        const said = talk.take();
        // EXPORT_NAME alone is answered without a header.
        if (said.length % 134 !== 10) optionAnswersOrExport(said);
      },
    ),
    LIMIT,
  );
});

function optionAnswersOrExport(said: Uint8Array): void {
  const old = said.length >= 10 && said.at(-10) === 0 && said.at(-9) === 0;
  const answers = old ? safely(() => optionAnswers(said.subarray(0, -10))) : undefined;
  expect(answers ?? optionAnswers(said)).toBeDefined();
}

function safely<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch {
    return undefined;
  }
}

interface Sent {
  readonly bytes: Uint8Array;
  readonly cookie: number;
}

const fields = fc.record({
  command: fc.nat(9),
  flags: u16,
  offset: u53,
  length: u32,
  lies: fc.nat(20),
});

function requestOf(
  extended: boolean,
  cookie: number,
  each: typeof fields extends fc.Arbitrary<infer T> ? T : never,
): Sent {
  const { command, flags, offset, lies } = each;
  // A payload that is longer than this would only make the run slower.
  const carries = command === 1 || (extended && (flags & 32) !== 0);
  const length = carries ? each.length % 70_000 : each.length;
  const payload = carries
    ? new Uint8Array(lies === 0 ? 0 : length).fill(cookie)
    : new Uint8Array(0);
  const make = extended ? extendedRequest : request;
  return { cookie, bytes: make(command, { flags, cookie, offset, length, payload }) };
}

test('no bytes crash the transmission; each request is answered once, in whole chunks', async () => {
  const bitmaps = { b: bitmapOf(SIZE, { offset: 5000, length: 7000 }) };
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('simple', 'structured', 'extended'),
      fc.array(fields, { maxLength: 8 }),
      damage,
      junk,
      sizes,
      async (form, specs, changes, tail, pieces) => {
        const extended = form === 'extended';
        const each = served({ device: fakeDevice(SIZE), bitmaps });
        const transmission = new Transmission(
          { export: each, extended, structured: form === 'structured' },
          { maxRequests: 3, maxBytes: 2 ** 20 },
        );
        const sent = specs.map((spec, i) => requestOf(extended, i + 1, spec));
        const bytes = concat(...sent.map(({ bytes }) => bytes));
        const intact = changes.length === 0 || bytes.length === 0;
        await transmission.say(damaged(bytes, changes), pieces);
        await transmission.say(tail, pieces);
        await settle();
        if (transmission.failure !== undefined) {
          expect(transmission.failure).toBeInstanceOf(LacunaError);
        }
        const said = transmission.take();
        if (form !== 'simple') checkAnswers(replies(said), intact ? sent : undefined);
        transmission.session.closed();
      },
    ),
    { ...LIMIT, numRuns: Math.ceil(RUNS / 3) },
  );
});

function checkAnswers(found: ReturnType<typeof replies>, sent: readonly Sent[] | undefined): void {
  const done = found.filter((reply) => reply.done).map(({ cookie }) => cookie);
  if (sent === undefined) return;
  expect(new Set(done).size).toBe(done.length);
  const asked = new Set(sent.map(({ cookie }) => cookie));
  for (const cookie of done) expect(asked.has(cookie)).toBe(true);
}
