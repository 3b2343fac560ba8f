import { LacunaError } from '../../../errors/index.js';
import type { ExtentList, Range } from '../../../extent/index.js';
import { encodeStatusPayload, type MetaContext } from '../../wire/index.js';
import { locate } from '../failures/index.js';
import type { RequestResult } from '../session/index.js';

/** The metadata contexts of a connection, by the names that callers have for them. */
export class GrantedContexts {
  readonly #name: string;
  readonly #ids: ReadonlyMap<string, number>;
  /** The server lets each request choose its contexts. */
  readonly #choosable: boolean;

  constructor(name: string, contexts: readonly MetaContext[], choosable: boolean) {
    this.#name = name;
    this.#ids = new Map(contexts.map((context) => [context.name, context.id]));
    this.#choosable = choosable;
  }

  /** @throws LacunaError ERR_CONTEXT_UNKNOWN */
  idsOf(contexts: readonly string[]): number[] {
    return contexts.map((context) => {
      const id = this.#ids.get(context);
      if (id !== undefined) return id;
      const what = `the metadata context ${JSON.stringify(context)} was not granted`;
      const message = `${this.#name}: ${what}`;
      throw new LacunaError('ERR_CONTEXT_UNKNOWN', message, { device: this.#name });
    });
  }

  /** The payload that asks for these contexts only; none where all are meant, or the server knows no payload. */
  payload(ids: readonly number[], effectLength: number): Uint8Array | undefined {
    const contextIds = [...new Set(ids)];
    if (!this.#choosable || contextIds.length === this.#ids.size) return undefined;
    return encodeStatusPayload({ effectLength, contextIds });
  }

  /**
   * The lists in the order asked. A server that answers without one that it granted broke the rules, but the
   * stream is intact.
   */
  pick(lists: RequestResult, contexts: readonly string[], range: Range): ExtentList[] {
    return contexts.map((context) => {
      const list = lists.get(this.#ids.get(context)!);
      if (list !== undefined && list.count > 0) return list;
      const what = `the server answered without the extents of ${JSON.stringify(context)}`;
      throw locate(new LacunaError('ERR_NBD_PROTOCOL', what), this.#name, range);
    });
  }
}
