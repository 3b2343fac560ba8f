import { LacunaError } from '../../../errors/index.js';
import { type Conversation, say } from '../../stream/index.js';
import {
  encodeInfoQuery,
  encodeOption,
  Info,
  type MetaContext,
  Option,
  OptionError,
} from '../../wire/index.js';
import { type Chosen, readInfos, type Words } from './export-infos.js';
import { ExportProperties } from './export-properties.js';
import { greet } from './greeting.js';
import { ask } from './handshake.js';
import { exportsThereAre } from './list.js';
import { askContexts } from './meta-contexts.js';
import { refusal } from './option-replies.js';
import { startTls } from './start-tls.js';

/** What a server tells of an export that nobody uses yet. */
export interface Told extends Chosen, Words {
  readonly structured: boolean;
  readonly extended: boolean;
  /** All contexts that there are. */
  readonly contexts: readonly MetaContext[];
}

/** What a server tells of an export; `contexts` are all that there are. */
export class ExportInformation extends ExportProperties {
  /** Its name, where the server says it: a default export may have one. */
  readonly exportName?: string;
  /** The server's words about it. */
  readonly description?: string;
  /**
   * Bytes that requests must and should keep to, as the server says them; absent where it says none. `maximum` is 2^32 - 1 where
   * there is no limit.
   */
  readonly blockSizes?: {
    readonly minimum: number;
    readonly preferred: number;
    readonly maximum: number;
  };

  /** @internal */
  constructor(told: Told) {
    super(told);
    if (told.name !== undefined) this.exportName = told.name;
    if (told.description !== undefined) this.description = told.description;
    if (told.blockSizesTold) this.blockSizes = told.blockSizes;
  }
}

/** Asks about an export ("NBD_OPT_INFO", "NBD_OPT_LIST_META_CONTEXT") and takes leave. */
export function* askInfo(options: { export: string; tls: boolean }): Conversation<Told> {
  const { export: name, tls } = options;
  const greeting = yield* greet();
  if (tls) yield* startTls(greeting);
  if (!greeting.fixed) {
    throw new LacunaError('ERR_NBD_UNSUPPORTED', 'the server is too old to tell of its exports');
  }
  const extended = yield* ask(Option.extendedHeaders);
  const structured = extended || (yield* ask(Option.structuredReply));
  const contexts = structured ? yield* askContexts(Option.listMetaContext, name, []) : [];
  const infos = [Info.name, Info.description, Info.blockSize];
  yield* say(encodeOption(Option.info, encodeInfoQuery(name, infos)));
  const told = yield* readInfos(Option.info);
  if (!('size' in told)) {
    const there = told.type === OptionError.unknown ? yield* exportsThereAre() : [];
    throw refusal(told, `to tell of the export ${JSON.stringify(name)}`, there);
  }
  // The reply to ABORT need not be awaited: either side may hang up at once.
  yield* say(encodeOption(Option.abort));
  return { ...told, structured, extended, contexts };
}
