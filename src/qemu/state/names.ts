/**
 * The names of what a session makes in QEMU. All begin with the session's prefix, which is how leftovers are found; names of
 * nodes have at most 31 characters there.
 */
import { randomBytes } from 'node:crypto';

const PREFIX = /^(lacuna-[0-9a-f]{8})-/;
/** A bitmap that records while a populate looks; no generation has a colon. */
const RECORDING = /^(lacuna-[0-9a-f]{8}):\d+$/;
/** A bitmap that records from a round of a migration on. */
const OF_ROUND = /^lacuna-migrate\.([0-9a-f]{8})\.\d+@/;
const OF_BACKUP = /^lacuna-[A-Za-z0-9._-]{1,64}@/;
const GENERATION = /^[A-Za-z0-9._-]{1,64}$/;
/** Begins the generations of rounds of migrations, and no other. */
const ROUND = 'migrate.';
const BITMAP = 'lacuna-';

export class SessionNames {
  /** `lacuna-` and eight characters that nobody can foresee. */
  readonly prefix: string;
  /** The copy of an old bitmap that says what an increment has to read. */
  readonly dirty: string;

  static random(): SessionNames {
    return new SessionNames(`lacuna-${randomBytes(4).toString('hex')}`);
  }

  constructor(prefix: string) {
    this.prefix = prefix;
    this.dirty = `${prefix}-x`;
  }

  /** The node of a scratch image; others are below. */
  scratch(disk: number): string {
    return `${this.prefix}-s${disk}`;
  }

  scratchFile(disk: number): string {
    return `${this.prefix}-sf${disk}`;
  }

  /** The filter that keeps old data before the guest overwrites it. */
  filter(disk: number): string {
    return `${this.prefix}-f${disk}`;
  }

  /** The node that shows the old data, where QEMU has one. */
  access(disk: number): string {
    return `${this.prefix}-a${disk}`;
  }

  /** The node through which QEMU writes to a server of ours: a mirror its replica, a push its disk. */
  outlet(disk: number): string {
    return `${this.prefix}-t${disk}`;
  }

  job(disk: number): string {
    return `${this.prefix}-j${disk}`;
  }

  /** The job that pushes the view. */
  pusher(disk: number): string {
    return `${this.prefix}-p${disk}`;
  }

  /** The filter of that job. */
  pushFilter(disk: number): string {
    return `${this.prefix}-pf${disk}`;
  }

  /** The export, in QMP and in NBD. */
  export(disk: number): string {
    return `${this.prefix}-e${disk}`;
  }

  /** A bitmap of a node for a short while: what is written while a populate looks, or what a migration copies last. */
  recording(node: number): string {
    return `${this.prefix}:${node}`;
  }

  /** The generation that counts from a round of a migration. */
  round(number: number): string {
    return `${ROUND}${this.prefix.slice(BITMAP.length)}.${number}`;
  }

  /** Whether a job is one of those that hold the view. */
  holdsView(job: string): boolean {
    return job.startsWith(`${this.prefix}-j`);
  }

  /** Whether a job is one of those that push the view. */
  pushes(job: string): boolean {
    return job.startsWith(`${this.prefix}-p`);
  }

  /** Whether something is named by this session. */
  owns(name: string | undefined): boolean {
    return name?.startsWith(`${this.prefix}-`) ?? false;
  }
}

/** The prefix of the session that has given something its name; undefined where none has. */
export function prefixOf(name: string | undefined): string | undefined {
  return PREFIX.exec(name ?? '')?.[1];
}

/**
 * The prefix of the populate or migration that records in a bitmap; undefined for all other bitmaps, those of backups among
 * them.
 */
export function prefixOfRecording(bitmap: string | undefined): string | undefined {
  const round = OF_ROUND.exec(bitmap ?? '')?.[1];
  return round === undefined ? RECORDING.exec(bitmap ?? '')?.[1] : `${BITMAP}${round}`;
}

/** Whether a generation is that of a round of a migration, on which no later backup depends. */
export function isRound(generation: string): boolean {
  return generation.startsWith(ROUND);
}

/** A name for a point in time that no other one has. */
export function newGeneration(): string {
  return randomBytes(8).toString('hex');
}

/** @throws TypeError for what cannot be part of a bitmap's name. */
export function checkGeneration(owner: string, generation: unknown): void {
  const isText = typeof generation === 'string' && GENERATION.test(generation);
  if (isText && !isRound(generation)) return;
  throw new TypeError(
    `${owner}: a generation has 1 to 64 letters, digits and . _ -, and does not begin with "${ROUND}", unlike ${JSON.stringify(generation)}`,
  );
}

/**
 * The bitmap of a disk that counts from a generation. It names the disk: where images were exchanged between devices, each has
 * a bitmap of that generation, which says nothing about what the backup holds of the other.
 */
export function bitmapOf(generation: string, disk: string): string {
  return `${beginOf(generation)}${disk}`;
}

/** libvirt's checkpoint of a generation. It gives its bitmaps the same name, on every disk. */
export function checkpointOf(generation: string): string {
  return `${BITMAP}${generation}`;
}

/** The generation that a bitmap or a checkpoint counts from; undefined where its name is none that backups give. */
export function generationIn(name: string): string | undefined {
  const [generation] = name.startsWith(BITMAP) ? name.slice(BITMAP.length).split('@') : [];
  return generation !== undefined && GENERATION.test(generation) && !isRound(generation)
    ? generation
    : undefined;
}

/** Whether a checkpoint has a name that only backups of ours give. */
export function isCheckpoint(name: string): boolean {
  return name.startsWith(BITMAP);
}

/** Whether a bitmap has a name that only backups give. */
export function isOfBackup(bitmap: string): boolean {
  return OF_BACKUP.test(bitmap);
}

/** Whether a bitmap counts from a generation, of whichever disk. */
export function countsFrom(generation: string, bitmap: string | undefined): bitmap is string {
  return bitmap?.startsWith(beginOf(generation)) ?? false;
}

/** Generations have no `@`, so none begins like another one. */
function beginOf(generation: string): string {
  return `${BITMAP}${generation}@`;
}
