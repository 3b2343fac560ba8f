/** What the readers of the wire fill, as an object of its own for each message. */
import {
  type ExtendedChunkHeader,
  ReplyFields,
  readChunkHeader,
  readExtendedChunkHeader,
  readSimpleReply,
} from '#dist/nbd/wire/replies.js';
import {
  type RequestFields,
  type RequestHeader,
  readExtendedRequest,
  readRequest,
} from '#dist/nbd/wire/requests.js';

/** The request at `at`; undefined where the magic is wrong. */
export function requestAt(view: DataView, at: number): RequestHeader | undefined {
  const request = blankRequest();
  return readRequest(view, at, request) ? request : undefined;
}

export function extendedRequestAt(view: DataView, at: number): RequestHeader | undefined {
  const request = blankRequest();
  return readExtendedRequest(view, at, request) ? request : undefined;
}

export function simpleReplyAt(view: DataView, at: number) {
  const fields = new ReplyFields();
  if (!readSimpleReply(view, at, fields)) return undefined;
  const { cookieHigh, cookieLow, error } = fields;
  return { cookieHigh, cookieLow, error };
}

export function chunkAt(view: DataView, at: number) {
  const fields = new ReplyFields();
  if (!readChunkHeader(view, at, fields)) return undefined;
  const { flags, type, cookieHigh, cookieLow, length } = fields;
  return { flags, type, cookieHigh, cookieLow, length };
}

export function extendedChunkAt(view: DataView, at: number): ExtendedChunkHeader | undefined {
  const fields = new ReplyFields();
  if (!readExtendedChunkHeader(view, at, fields)) return undefined;
  const { flags, type, cookieHigh, cookieLow, offset, length } = fields;
  return { flags, type, cookieHigh, cookieLow, offset, length };
}

function blankRequest(): RequestFields {
  return { flags: 0, command: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
}
