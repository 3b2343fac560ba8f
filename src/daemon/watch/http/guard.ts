import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { HttpError } from './http-error.js';

/** Names that no server of others can have: who comes by another one was led here by a name that somebody else gave out. */
const OWN_NAMES = /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(?::\d{1,5})?$/i;

/**
 * Lets in only who means this server: a page of another site can neither ask (its origin differs) nor be a name for this
 * machine (its host differs).
 *
 * @throws HttpError
 */
export function checkSender({
  headers,
  method,
}: Pick<IncomingMessage, 'headers' | 'method'>): void {
  const { host, origin } = headers;
  if (host === undefined || !OWN_NAMES.test(host)) {
    const told = host === undefined ? 'without a Host' : `for the host ${host}`;
    throw new HttpError(403, `a request ${told}: come by localhost, 127.0.0.1 or [::1]`);
  }
  if (origin !== undefined && origin !== `http://${host}`) {
    throw new HttpError(403, `a request of a page of ${origin}, which is another site`);
  }
  // Somebody follows a link: what is answered is theirs to see, and nobody else's.
  if (method === 'GET' && headers['sec-fetch-dest'] === 'document') return;
  const site = headers['sec-fetch-site'];
  if (site !== undefined && site !== 'same-origin' && site !== 'none') {
    throw new HttpError(403, 'a request that a page of another site has made');
  }
}

/** @throws HttpError where a request that changes something does not bring the token. */
export function checkToken({ headers }: Pick<IncomingMessage, 'headers'>, token: string): void {
  const given = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1];
  if (given === undefined)
    throw new HttpError(401, 'this needs the token: open the page anew with it');
  const [a, b] = [Buffer.from(given), Buffer.from(token)];
  if (a.length === b.length && timingSafeEqual(a, b)) return;
  throw new HttpError(401, 'this is not the token: it was made anew when the server was started');
}
