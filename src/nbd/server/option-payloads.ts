/** Payloads of the options that a client sends, taken apart. What does not fit exactly is undefined. */
import { viewOf } from '../../util/index.js';
import { decodeText, MAX_STRING_BYTES } from '../wire/index.js';

export interface InfoQuery {
  readonly exportName: string;
  readonly infos: readonly number[];
}

export interface ContextQuery {
  readonly exportName: string;
  readonly queries: readonly string[];
}

/** INFO and GO: a name, a count, and as many infos ("NBD_OPT_INFO"). */
export function decodeInfoQuery(payload: Uint8Array): InfoQuery | undefined {
  const fields = new Fields(payload);
  const exportName = fields.text();
  const count = fields.u16();
  const infos: number[] = [];
  if (count * 2 !== fields.left) return undefined;
  for (let i = 0; i < count; i++) infos.push(fields.u16());
  return fields.fit ? { exportName, infos } : undefined;
}

/** LIST_META_CONTEXT and SET_META_CONTEXT: a name, a count, and as many queries. */
export function decodeContextQuery(payload: Uint8Array): ContextQuery | undefined {
  const fields = new Fields(payload);
  const exportName = fields.text();
  const count = fields.u32();
  const queries: string[] = [];
  // A count is a claim; memory is taken for what is there.
  for (let i = 0; i < count && fields.fit; i++) queries.push(fields.text());
  return fields.fit && fields.left === 0 ? { exportName, queries } : undefined;
}

/** Reads one field after another; `fit` turns false for good where one is not there. */
class Fields {
  fit = true;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number {
    const at = this.#take(2);
    return this.fit ? this.#view.getUint16(at) : 0;
  }

  u32(): number {
    const at = this.#take(4);
    return this.fit ? this.#view.getUint32(at) : 0;
  }

  text(): string {
    const length = this.u32();
    if (length > MAX_STRING_BYTES) this.fit = false;
    const at = this.#take(length);
    return this.fit ? decodeText(this.#bytes.subarray(at, at + length)) : '';
  }

  #take(count: number): number {
    const at = this.#at;
    if (count > this.left) this.fit = false;
    else this.#at += count;
    return at;
  }
}
