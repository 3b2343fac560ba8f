import type { Driver } from '#dist/block/index.js';

const SECTOR = 512;

/** Something that the disk was told, in order. */
type Entry =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  /** All that stands before entry `since` is durable from here on. */
  | { readonly kind: 'flushed'; readonly since: number };

/** Whether a sector of a write reached the disk; told whether the write is the newest one. */
export type Keep = (isNewest: boolean) => boolean;

/**
 * A disk in memory that remembers every write and flush, and tells afterwards what could have been left of it had the
 * power failed: at any entry, with writes that no flush has followed there or not, sector by sector.
 */
export class PowerCutDisk {
  readonly #first: Buffer;
  readonly #log: Entry[] = [];
  #now: Buffer;
  #end: number;

  constructor(content: Uint8Array) {
    this.#first = Buffer.from(content);
    this.#now = Buffer.from(content);
    this.#end = content.length;
  }

  /** Entries so far: a cut may be made at 0 to this many. */
  get entries(): number {
    return this.#log.length;
  }

  /** What a reader would see now. */
  get content(): Buffer {
    return this.#now.subarray(0, this.#end);
  }

  /**
   * A driver over the disk, which grows. Flushes take a while, and cover what was written before they began.
   *
   * @param changes what the driver does otherwise.
   */
  driver(changes: Partial<Driver> = {}): Driver {
    const end = () => this.#end;
    // Copied, a getter would be what it was when it was copied.
    return Object.assign(Object.create(this.#driver(end)), changes);
  }

  #driver(end: () => number): Driver {
    return {
      get end() {
        return end();
      },
      name: 'disk.qcow2',
      size: Number.MAX_SAFE_INTEGER,
      limits: {
        minimum: 1,
        preferred: 4096,
        maximum: 2 ** 30,
        maximumZero: 2 ** 40,
        zeroAlignment: 1,
        discardAlignment: 1,
      },
      capabilities: { write: true, discard: true, flush: true },
      read: async (offset, target) => {
        target.fill(0);
        if (offset < this.#end)
          target.set(this.#now.subarray(offset, Math.min(this.#end, offset + target.length)));
      },
      write: async (offset, source) => {
        // The slice of a Buffer is no copy.
        this.#write(offset, Uint8Array.from(source));
        await new Promise(setImmediate);
      },
      writeNow: (offset, source) => {
        this.#write(offset, Uint8Array.from(source));
        this.#log.push({ kind: 'flushed', since: this.#log.length });
      },
      discard: async (offset, length) => {
        const end = Math.min(this.#end, offset + length);
        if (offset < end) this.#write(offset, new Uint8Array(end - offset));
      },
      flush: async () => {
        const since = this.#log.length;
        await new Promise(setImmediate);
        this.#log.push({ kind: 'flushed', since });
      },
      close: async () => {},
    };
  }

  /**
   * The states in which a cut can leave the disk, one entry after the other, from the beginning on.
   *
   * @param visit takes the entry, and a function that makes the content: with each sector of what was not flushed as
   * `keep` says.
   */
  forEachCut(visit: (entry: number, content: (keep: Keep) => Buffer) => void): void {
    const durable = Buffer.alloc(this.#end);
    this.#first.copy(durable);
    let applied = 0;
    for (let cut = 0; cut <= this.#log.length; cut++) {
      const entry = cut === 0 ? undefined : this.#log[cut - 1];
      if (entry?.kind === 'flushed') {
        for (; applied < entry.since; applied++) apply(durable, this.#log[applied]);
      }
      visit(cut, (keep) => {
        const content = Buffer.from(durable);
        for (let i = applied; i < cut; i++) apply(content, this.#log[i], () => keep(i === cut - 1));
        return content;
      });
    }
  }

  #write(offset: number, bytes: Uint8Array): void {
    this.#end = Math.max(this.#end, offset + bytes.length);
    if (this.#end > this.#now.length) {
      const grown = Buffer.alloc(this.#end * 2);
      this.#now.copy(grown);
      this.#now = grown;
    }
    this.#now.set(bytes, offset);
    this.#log.push({ kind: 'write', offset, bytes });
  }
}

function apply(content: Buffer, entry: Entry, keep?: () => boolean): void {
  if (entry.kind !== 'write') return;
  const { offset, bytes } = entry;
  if (keep === undefined) {
    content.set(bytes, offset);
    return;
  }
  for (let at = 0; at < bytes.length; ) {
    const to = Math.min(bytes.length, at + SECTOR - ((offset + at) % SECTOR));
    if (keep()) content.set(bytes.subarray(at, to), offset + at);
    at = to;
  }
}
