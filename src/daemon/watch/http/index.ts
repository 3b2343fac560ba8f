export { parseWatchAddress, urlOf, type WatchAddress } from './address.js';
export { beginStream, send, sendJson } from './answer.js';
export { readObject } from './body.js';
export { checkSender, checkToken } from './guard.js';
export { HttpError } from './http-error.js';
export { listenAt } from './listen.js';
