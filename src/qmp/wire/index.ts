export { protocolError, shown } from './failures.js';
export { type JsonObject, JsonStream } from './json-stream.js';
export { parseJson } from './json-text.js';
export {
  answerText,
  commandText,
  errorText,
  eventText,
  greetingText,
  messageOf,
  type QmpEvent,
  type QmpVersion,
} from './messages.js';
export { anything, flag, integer, list, members, optional, type Reader, text } from './readers.js';
