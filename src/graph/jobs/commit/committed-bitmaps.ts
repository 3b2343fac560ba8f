import { Bitmap, type BitmapAction, type DirtyBitmapInfo } from '../../../bitmap/index.js';
import { type BitmapChange, called, type Node } from '../../core/index.js';
import { heldInLayers } from '../layers/index.js';

/** What a base gets of the bitmaps of the images that are put into it. */
export interface CommittedBitmaps {
  readonly names: readonly string[];
  /** What a person should know of those that stay behind. */
  readonly warnings: readonly string[];
  readonly changes: readonly BitmapChange[];
  /** Finds out what is known only when nobody writes any more; before the changes are made. */
  gather(): Promise<void>;
  free(): void;
}

/**
 * The dirt of each bitmap of the images is added to that of the base of the same name, or the base gets one like it, which begins
 * at the moment of the change, since what the images held before it began is nothing new to it. It records if that of the upper
 * image does.
 *
 * One that records in an image, and does not go on in the image above that, lacks what was written there. So it gets all that this
 * holds, as if the one had been put into the other first.
 *
 * @param images from the top down.
 */
export async function committedBitmaps(
  images: readonly Node[],
  base: Node,
): Promise<CommittedBitmaps> {
  const gathered = new Gathered(images[0], base);
  try {
    for (let layer = images.length; layer > 0; layer--) {
      const image = images[layer - 1];
      gathered.addMissing(image, layer);
      for (const info of image.bitmaps) await gathered.add(image, info);
    }
    const there = base.log.bitmaps;
    for (const name of gathered.names) if (there.has(name)) await there.load(name);
  } catch (error) {
    gathered.free();
    throw error;
  }
  return gathered;
}

/** Of what layers hold. */
const LEAST_GRANULARITY = 4096;

class Gathered implements CommittedBitmaps {
  readonly #top: Node;
  readonly #base: Node;
  readonly #there: Map<string, DirtyBitmapInfo>;
  /** Of which a warning says that they are kept nowhere else. */
  readonly #inMemory = new Set<string>();
  readonly #names = new Map<string, { readonly records: boolean }>();
  readonly #actions: BitmapAction[] = [];
  readonly #copies: Bitmap[] = [];
  /** What so many layers from the top hold. */
  readonly #held = new Map<number, Bitmap>();
  readonly warnings: string[] = [];

  constructor(top: Node, base: Node) {
    this.#top = top;
    this.#base = base;
    this.#there = new Map(base.bitmaps.map((info) => [info.name, info]));
  }

  get names(): readonly string[] {
    return [...this.#names.keys()];
  }

  get changes(): readonly BitmapChange[] {
    return this.#actions.length === 0 ? [] : [{ node: this.#base, actions: this.#actions }];
  }

  free(): void {
    for (const bits of [...this.#copies, ...this.#held.values()]) bits.free();
  }

  async gather(): Promise<void> {
    for (const [layer, bits] of this.#held) await heldInLayers(this.#top.device, layer, bits);
  }

  addMissing(image: Node, layer: number): void {
    const sound = image.bitmaps.filter(({ inconsistent }) => !inconsistent);
    const there = new Set(sound.map(({ name }) => name));
    for (const [name, { records }] of this.#names) {
      if (!records || there.has(name)) continue;
      let bits = this.#held.get(layer);
      if (bits === undefined) {
        bits = new Bitmap({ size: this.#base.size, granularity: LEAST_GRANULARITY });
        this.#held.set(layer, bits);
      }
      this.#actions.push({ type: 'merge', target: name, sources: [bits] });
    }
  }

  async add(image: Node, info: DirtyBitmapInfo): Promise<void> {
    const { name, recording } = info;
    const why = this.#refuses(info);
    if (why !== undefined) {
      this.warnings.push(`Bitmap '${name}' of ${called(image)} stays there: ${why}`);
      return;
    }
    await image.log.bitmaps.load(name);
    this.#begin(info);
    this.#names.set(name, { records: recording });
    this.#actions.push({ type: 'merge', target: name, sources: [this.#source(image, name)] });
    this.#actions.push({ type: recording ? 'enable' : 'disable', name });
  }

  /** Says where it is kept from then on, and adds it if the base has none of that name. */
  #begin({ name, granularity, persistent }: DirtyBitmapInfo): void {
    const there = this.#there.get(name);
    const isNew = there === undefined && !this.#names.has(name);
    const isKept = persistent && (there?.persistent ?? this.#base.log.canKeep);
    if (persistent && !isKept && !this.#inMemory.has(name)) {
      const why = there ? 'keeps one of that name in memory' : 'has no place to keep it in';
      this.#inMemory.add(name);
      this.warnings.push(`Bitmap '${name}' goes on in memory only: ${called(this.#base)} ${why}`);
    }
    if (!isNew) return;
    this.#actions.push({ type: 'add', name, granularity, persistent: isKept, disabled: true });
  }

  #refuses({ name, inconsistent }: DirtyBitmapInfo): string | undefined {
    if (inconsistent) return 'it is inconsistent';
    if (this.#there.get(name)?.inconsistent) return 'that of the base is inconsistent';
    return undefined;
  }

  /** One that is as large as the base is merged as it is at the moment of the change; nobody writes the others. */
  #source(image: Node, name: string) {
    const { bitmaps } = image.log;
    if (image.size === this.#base.size) return { bitmaps, name };
    const bits = bitmaps.get(name).snapshot();
    this.#copies.push(bits);
    bits.resize(this.#base.size);
    return bits;
  }
}
