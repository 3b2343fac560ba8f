/** What the server does for each command. A rejection is answered by the session. */
import { LacunaError } from '../../../errors/index.js';
import { type ExtentList, Status } from '../../../extent/index.js';
import { Command, CommandFlag, decodeStatusPayload } from '../../wire/index.js';
import type { Holes, NbdExportDevice, ServedContext, ServedExport } from '../export/index.js';
import { statusOf } from '../export/index.js';
import type { Replies } from './replies.js';
import { SMALL_BYTES } from './replies.js';
import type { ServerRequest } from './request.js';

/** What commands work with; one for each connection. */
export interface Workplace {
  readonly served: ServedExport;
  readonly replies: Replies;
  readonly structured: boolean;
  /** Granted contexts. */
  readonly contexts: readonly ServedContext[];
  readonly holes: Holes | undefined;
  /** Fires when the connection is gone. */
  readonly signal: AbortSignal;
}

/** More pieces than this are not worth a chunk each. */
const MOST_PIECES = 32;

const has = (request: ServerRequest, flag: number) => (request.flags & flag) !== 0;

/** Carries out a request that was found to be fine, and queues its answer. */
export function execute(request: ServerRequest, work: Workplace): Promise<void> {
  switch (request.command) {
    case Command.read:
      return read(request, work);
    case Command.write:
      return write(request, work);
    case Command.writeZeroes:
      return writeZeroes(request, work);
    case Command.trim:
      return trim(request, work);
    case Command.cache:
      return cache(request, work);
    case Command.blockStatus:
      return blockStatus(request, work);
    default:
      return flush(request, work);
  }
}

async function read(request: ServerRequest, work: Workplace): Promise<void> {
  const { offset, length } = request;
  const { served, replies } = work;
  if (length === 0) return replies.empty(request);
  if (request.inPieces) return readInPieces(request, work);
  if (looksForHoles(request, work)) {
    const list = await work.holes!.find(offset, length);
    if (list !== undefined) return readAround(request, list, work);
  }
  const target = request.buffer!.subarray(0, length);
  await served.device.read(offset, target);
  request.hold();
  replies.data(request, { bytes: target, offset, last: true }, request.release);
}

/** "NBD_CMD_FLAG_DF" forbids pieces; and a small answer is not made smaller by a hole. */
function looksForHoles(request: ServerRequest, { structured, holes }: Workplace): boolean {
  const { offset, length } = request;
  if (holes === undefined || !structured || length <= SMALL_BYTES) return false;
  return !has(request, CommandFlag.dontFragment) && !holes.isData(offset, length);
}

/**
 * Reads and sends one buffer after another. Without chunks, or where the client wants one alone, an answer that has
 * begun cannot become an error: then a failure ends the connection.
 */
async function readInPieces(
  request: ServerRequest,
  { served, replies, structured, signal }: Workplace,
): Promise<void> {
  const { offset, length } = request;
  const buffer = request.buffer!;
  const isOne = !structured || has(request, CommandFlag.dontFragment);
  for (let at = 0; at < length; at += buffer.length) {
    const bytes = buffer.subarray(0, Math.min(buffer.length, length - at));
    await served.device.read(offset + at, bytes);
    if (signal.aborted) return;
    if (isOne && at === 0) {
      replies.begin(request);
      request.answering = true;
    }
    const last = at + bytes.length === length;
    await new Promise<void>((resolve) => {
      if (isOne) replies.bytes(bytes, resolve);
      else replies.data(request, { bytes, offset: offset + at, last }, resolve);
    });
  }
}

interface Piece {
  readonly offset: number;
  readonly end: number;
  readonly zero: boolean;
}

/** Reads what is not zero, and answers in pieces once all of it is there. */
async function readAround(
  request: ServerRequest,
  list: ExtentList,
  { served, replies }: Workplace,
): Promise<void> {
  const pieces = piecesOf(request, list);
  const bytesOf = ({ offset, end }: Piece) =>
    request.buffer!.subarray(offset - request.offset, end - request.offset);
  for (const piece of pieces) {
    if (!piece.zero) await served.device.read(piece.offset, bytesOf(piece));
  }
  for (const piece of pieces) {
    const { offset, end } = piece;
    const last = piece === pieces.at(-1);
    if (piece.zero) replies.hole(request, offset, end - offset, last);
    else {
      request.hold();
      replies.data(request, { bytes: bytesOf(piece), offset, last }, request.release);
    }
  }
}

/** Data and zeroes in turn; what the list does not tell is data. */
function piecesOf({ offset, length }: ServerRequest, list: ExtentList): Piece[] {
  const end = offset + length;
  const pieces: Piece[] = [];
  let at = offset;
  const add = (to: number, zero: boolean) => {
    const last = pieces.at(-1);
    if (last?.zero === zero) pieces[pieces.length - 1] = { ...last, end: to };
    else pieces.push({ offset: at, end: to, zero });
    at = to;
  };
  for (let i = 0; i < list.count && at < end && pieces.length < MOST_PIECES; i++) {
    add(Math.min(list.endAt(i), end), (list.flagsAt(i) & Status.zero) !== 0);
  }
  if (at < end) add(end, false);
  return pieces;
}

async function write(request: ServerRequest, work: Workplace): Promise<void> {
  if (request.length > 0) await writePiece(request, work.served.device);
  if (request.failure !== undefined) throw request.failure;
  work.replies.done(request);
}

/** Writes what lies in the buffer: all of the payload, or a piece of it. Behind one that failed, none is written. */
export async function writePiece(
  request: ServerRequest,
  device: Pick<NbdExportDevice, 'write'>,
): Promise<void> {
  if (request.failure !== undefined) return;
  const options = has(request, CommandFlag.fua) ? FUA : NO_FUA;
  await device.write(request.offset + request.bufferStart, request.payload, options);
}

const FUA = { fua: true };
const NO_FUA = { fua: false };

async function writeZeroes(
  request: ServerRequest,
  { served, replies, signal }: Workplace,
): Promise<void> {
  const fast = has(request, CommandFlag.fastZero);
  const fua = has(request, CommandFlag.fua);
  const unmap = !has(request, CommandFlag.noHole);
  try {
    await served.device.zero(request.offset, request.length, { unmap, fast, fua, signal });
  } catch (error) {
    const slow = error instanceof LacunaError && error.code === 'ERR_DEVICE_UNSUPPORTED';
    if (!fast || !slow) throw error;
    replies.fail(request, 'ENOTSUP', 'it would not be fast');
    return;
  }
  replies.done(request);
}

async function trim(request: ServerRequest, { served, replies, signal }: Workplace): Promise<void> {
  await served.device.discard(request.offset, request.length, { signal });
  if (has(request, CommandFlag.fua)) await served.device.flush();
  replies.done(request);
}

/** Reading brings what lies below into its caches. */
async function cache(request: ServerRequest, { served, replies }: Workplace): Promise<void> {
  const { offset, length, buffer } = request;
  for (let at = 0; at < length; at += buffer!.length) {
    const piece = buffer!.subarray(0, Math.min(buffer!.length, length - at));
    await served.device.read(offset + at, piece);
  }
  replies.done(request);
}

async function flush(request: ServerRequest, { served, replies }: Workplace): Promise<void> {
  await served.device.flush();
  replies.done(request);
}

async function blockStatus(request: ServerRequest, work: Workplace): Promise<void> {
  const asked = askedStatus(request, work);
  if (typeof asked === 'string') {
    work.replies.fail(request, 'EINVAL', asked);
    return;
  }
  const { maxExtents } = request;
  const question = { ...asked, maxExtents, offset: request.offset, signal: work.signal };
  const lists = await statusOf(work.served.device, question);
  lists.forEach((list, i) => {
    work.replies.status(request, asked.contexts[i].id, list, i === lists.length - 1);
  });
}

/** Which contexts are asked, and about how many bytes; or why that cannot be answered. */
function askedStatus(
  request: ServerRequest,
  { contexts, served }: Workplace,
): { length: number; contexts: readonly ServedContext[] } | string {
  if (!has(request, CommandFlag.payloadLength)) return { length: request.length, contexts };
  const payload = request.buffer === undefined ? undefined : decodeStatusPayload(request.payload);
  if (payload === undefined) return 'its payload does not add up';
  const { effectLength, contextIds } = payload;
  if (effectLength === 0 || effectLength > served.size - request.offset) {
    return `${effectLength} bytes at ${request.offset} are not inside the export`;
  }
  const chosen = contexts.filter(({ id }) => contextIds.includes(id));
  // An id that was not granted, or that is there twice.
  if (chosen.length === 0 || chosen.length !== contextIds.length)
    return 'its context ids are wrong';
  return { length: effectLength, contexts: chosen };
}
