export type { ByteSink } from './byte-sink.js';
export { type Conversation, Dialogue, say, secure, take } from './dialogue.js';
export { Inbox } from './inbox.js';
export { Outbox, type Sender } from './outbox.js';
