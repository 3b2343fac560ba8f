import { LacunaError } from '../errors/index.js';
import { checkGiven, optionCheck } from '../util/index.js';
import { ArenaBlock } from './block.js';
import { type CompiledModule, engine, type SharedMemory } from './engine.js';
import { type Instance, instantiate, type Pointer } from './kernels.js';
import { type KernelVariant, kernelModule, preferredVariant } from './module.js';

const PAGE_BYTES = 65536;
/** 4 GiB, all that a 32-bit address reaches. */
const MAXIMUM_BYTES = 2 ** 32;
/**
 * The last page is left out: then no block ends where addresses overflow, and a view of the memory can be
 * posted to a worker, which Node 20 silently fails to do when the memory has 2^32 bytes.
 */
const MOST_PAGES = 65535;
/** Table, header and room for a bitmap or two. */
const MINIMUM_BYTES = 256 * 1024;
/** Each thread's own room for the results of kernels: some thousand f64. */
const SCRATCH_BYTES = 16384;

/** What another thread needs to use the same arena; it survives `postMessage` and `workerData`. */
export interface SharedArena {
  /** @internal The compiled kernels. */
  readonly module: CompiledModule;
  /** @internal */
  readonly memory: SharedMemory;
  /** Bytes that the memory may grow to. */
  readonly maximumBytes: number;
}

/** How much room an arena has. */
export interface ArenaOptions {
  /**
   * Room in the arena: 256 KiB to 4 GiB (the default). What is not used costs nothing; less is made
   * where the system does not promise as many addresses.
   */
  maximumBytes?: number;
  /** Which build of the kernels; default the best that this machine runs. */
  variant?: KernelVariant;
}

const checkArenaOptions = optionCheck<ArenaOptions>({ maximumBytes: 'any', variant: 'any' });

let processArena: Arena | undefined;

/**
 * One shared memory for bitmaps and I/O slots, and this thread's kernels over it. Any thread may allocate and free; a block or bitmap of one thread is valid in all of
 * them.
 */
export class Arena {
  /** Post this to a worker, which calls {@link Arena.attach} with it. */
  readonly shared: SharedArena;
  readonly #instance: Instance;
  readonly #scratch: ArenaBlock;
  readonly #numbers: Float64Array;

  private constructor(shared: SharedArena, instance: Instance) {
    this.shared = shared;
    this.#instance = instance;
    this.#scratch = this.allocate(SCRATCH_BYTES);
    const { buffer, byteOffset } = this.#scratch.bytes;
    const { walkBytes } = instance.layout;
    this.#numbers = new Float64Array(
      buffer,
      byteOffset + walkBytes,
      (SCRATCH_BYTES - walkBytes) / 8,
    );
  }

  /**
   * Makes an empty arena.
   *
   * @throws RangeError when `maximumBytes` is out of its range.
   */
  static create(options: ArenaOptions = {}): Arena {
    checkArenaOptions('Arena.create', options);
    const { maximumBytes = MAXIMUM_BYTES, variant = preferredVariant() } = options;
    if (
      !Number.isSafeInteger(maximumBytes) ||
      maximumBytes < MINIMUM_BYTES ||
      maximumBytes > MAXIMUM_BYTES
    ) {
      throw new RangeError(
        `maximumBytes must be ${MINIMUM_BYTES} to ${MAXIMUM_BYTES}, not ${maximumBytes}`,
      );
    }
    const module = kernelModule(variant);
    const memory = reserve(maximumBytes);
    const instance = instantiate(module, memory);
    instance.kernels.initArena();
    return new Arena({ module, memory, maximumBytes: memory.buffer.byteLength }, instance);
  }

  /**
   * Uses the arena of another thread.
   *
   * @throws TypeError when `shared` is no arena of this version of Lacuna.
   */
  static attach(shared: SharedArena): Arena {
    checkGiven('Arena.attach', 'shared', shared, "the property `shared` of another thread's arena");
    const instance = instantiate(shared.module, shared.memory);
    if (instance.kernels.isArena() === 0) {
      throw new TypeError(`no arena of layout ${instance.layout.version} is in this memory`);
    }
    return new Arena(shared, instance);
  }

  /** The arena of this thread for those who do not name one; made when first asked for. */
  static get default(): Arena {
    processArena ??= Arena.create();
    return processArena;
  }

  /** Bytes in blocks and bitmaps that somebody holds, each thread's scratch room included. */
  get usedBytes(): number {
    return this.#instance.kernels.usedBytes();
  }

  /**
   * A block of at least `length` bytes (1 to 1 GiB), whose content is undefined.
   *
   * @throws RangeError when `length` is out of its range.
   * @throws LacunaError ERR_ARENA_FULL; nothing has changed then.
   */
  allocate(length: number): ArenaBlock {
    if (!Number.isSafeInteger(length) || length < 1 || length > 2 ** 30) {
      throw new RangeError(`a block must have 1 to ${2 ** 30} bytes, not ${length}`);
    }
    const { kernels } = this.#instance;
    const address = (kernels.alloc(length) >>> 0) as Pointer;
    if (address === 0) throw arenaFull(this.shared.maximumBytes);
    return new ArenaBlock(kernels, address, this.#view(address, length));
  }

  /** Whether `length` bytes of a block, from `offset` on, are all zero. */
  isZero(block: ArenaBlock, offset = 0, length = block.length - offset): boolean {
    return this.#instance.kernels.isZero(block.addressOf(offset, length), length) !== 0;
  }

  /**
   * The run at `offset`: how many bytes, in steps of `step`, are all zero (a positive number), or
   * belong to steps that are not (a negative number). The last step may be shorter. 0 when `length`
   * is 0.
   */
  zeroRun(block: ArenaBlock, offset: number, length: number, step = 4096): number {
    if (!Number.isSafeInteger(step) || step < 1 || step > 2 ** 31) {
      throw new RangeError(`step must be 1 to ${2 ** 31}, not ${step}`);
    }
    return this.#instance.kernels.zeroRun(block.addressOf(offset, length), length, step);
  }

  /**
   * Gives this thread's scratch room back; the arena must not be used by this thread afterwards.
   */
  detach(): void {
    this.#scratch.free();
  }

  /** @internal For the rest of `src/wasm`. */
  get instance(): Instance {
    return this.#instance;
  }

  /** @internal For the rest of `src/wasm`. */
  get scratch(): ArenaBlock {
    return this.#scratch;
  }

  /** @internal The scratch room as numbers, behind the walker's own. */
  get numbers(): Float64Array {
    return this.#numbers;
  }

  #view(address: Pointer, length: number): Uint8Array {
    return new Uint8Array(this.shared.memory.buffer, address, length);
  }
}

/**
 * A memory of its final size, whose untouched pages cost nothing; see initArena in assembly/buddy.ts. Where
 * the system does not promise as many addresses, half of them are asked for, and so on.
 *
 * @throws LacunaError ERR_ARENA_FULL when there is no room for a small one either.
 */
function reserve(maximumBytes: number): SharedMemory {
  for (let bytes = maximumBytes; bytes >= MINIMUM_BYTES; bytes /= 2) {
    const pages = Math.min(MOST_PAGES, Math.floor(bytes / PAGE_BYTES));
    try {
      return new engine.Memory({ shared: true, initial: pages, maximum: pages });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  throw new LacunaError(
    'ERR_ARENA_FULL',
    'the system has no room for an arena: allow this process more address space (ulimit -v)',
  );
}

/** The error for an arena that has no room; it says what to do. */
export function arenaFull(maximumBytes: number): LacunaError {
  return new LacunaError(
    'ERR_ARENA_FULL',
    `the arena is full: it has no more than ${maximumBytes} bytes. Free bitmaps or blocks ` +
      'that are not needed any more, or create the arena with a larger maximumBytes',
  );
}
