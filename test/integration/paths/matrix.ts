/** Runs every role with every kind of path, and tells each outcome. */
import { lstatSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { KINDS, type Kind, type Made } from './kinds.js';
import type { Materials } from './materials.js';
import { BAD_BYTE, giveAway, makeOthers, nameInImage, type Place, sh } from './place.js';
import { Runner, runByShell } from './pool.js';
import { ROLES, type Role } from './roles.js';
import { diffTrees, lookAt } from './tree.js';
import type { Outcome } from './worker.js';

/** One line of the table. */
export interface Row {
  readonly role: string;
  readonly kind: string;
  /** The exit code, or `hangs`, or `crashes`. */
  readonly exit: string;
  /** What standard error says, and standard output of what failed; the names of a run are replaced. */
  readonly says: string;
  /** What became of the files. */
  readonly files: string;
}

export interface Ground {
  /** A folder of a file system that has everything. */
  readonly folder: string;
  /** The checkout, where every user can read it. */
  readonly root: string;
  readonly materials: Materials;
  /** Whether this process may make what needs root's rights. */
  readonly isRoot: boolean;
}

/** Kinds that run at the same time. */
const LANES = 2;

/** All rows that can be had here, in the order of roles and kinds. */
export async function runAll(ground: Ground): Promise<Row[]> {
  const kinds = KINDS.filter((kind) => ground.isRoot || !kind.root);
  const waiting = [...kinds];
  const rows: Row[] = [];
  const lane = async () => {
    const runners = new Runners(ground.root);
    try {
      for (let kind = waiting.shift(); kind !== undefined; kind = waiting.shift()) {
        for (const role of ROLES.filter((each) => belong(kind, each))) {
          rows.push(await runOne(kind, role, { ground, runners }));
        }
      }
    } finally {
      await runners.stop();
    }
  };
  // A lane that fails does not take the ground away from the others.
  const ends = await Promise.allSettled(Array.from({ length: LANES }, lane));
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  const order = ({ role, kind }: Row) =>
    ROLES.findIndex((each) => each.name === role) * KINDS.length +
    KINDS.findIndex((each) => each.name === kind);
  return rows.sort((a, b) => order(a) - order(b));
}

/** Where nothing is at the path, only some kinds are of their own. */
export function belong(kind: Kind, role: Role): boolean {
  return role.good !== 'nothing' || kind.bare === true;
}

class Runners {
  readonly root: string;
  readonly #users = new Map<boolean, Runner>();

  constructor(root: string) {
    this.root = root;
  }

  of(nobody: boolean): Runner {
    const runner = this.#users.get(nobody) ?? new Runner(this.root, { nobody });
    this.#users.set(nobody, runner);
    return runner;
  }

  async stop(): Promise<void> {
    for (const runner of this.#users.values()) await runner.stop();
  }
}

let runs = 0;

async function runOne(
  kind: Kind,
  role: Role,
  { ground, runners }: { ground: Ground; runners: Runners },
): Promise<Row> {
  // As long as every other, because some messages tell how long a path is.
  const folder = join(ground.folder, `${++runs}`.padStart(4, '0'));
  const [at, work] = ['at', 'work'].map((name) => join(folder, name));
  const place: Place = { at, work, role, materials: ground.materials };
  for (const each of [folder, place.at, place.work]) mkdirSync(each);
  makeOthers(place);
  const made = await kind.make(place);
  try {
    return await runMade(made, { kind, place, folder, runners });
  } finally {
    restoreDevice(made);
    await made.undo?.();
    rmSync(folder, { recursive: true });
  }
}

/** What a command made of a device's name must not meet the next one. */
function restoreDevice({ path, device }: Made): void {
  if (device === undefined || isDevice(path, device)) return;
  sh('mknod', '-m', '666', `${path}.again`, ...device);
  renameSync(`${path}.again`, path);
}

function isDevice(path: string, [type, major, minor]: NonNullable<Made['device']>): boolean {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined || stats.uid !== 0 || (stats.mode & 0o7777) !== 0o666) return false;
  const isType = type === 'b' ? stats.isBlockDevice() : stats.isCharacterDevice();
  // As Linux has them where both are below 256.
  return isType && stats.rdev === Number(major) * 256 + Number(minor);
}

async function runMade(
  made: Made,
  { kind, place, folder, runners }: { kind: Kind; place: Place; folder: string; runners: Runners },
): Promise<Row> {
  const { role, materials, work } = place;
  const { nobody = false } = kind;
  nameInImage(made.path, place);
  if (nobody) giveAway(work);
  const look = () => lookAt(folder, made.path, { acls: kind.name.includes('ACL') });
  const before = look();
  const args = role.args(made.path, (name) => join(work, name));
  const order = { args, serves: role.serves ?? false };
  const outcome = kind.shell
    ? await runByShell(runners.root, work, order)
    : await runners.of(nobody).run(order);
  const changes = diffTrees(before, look(), { folder, path: made.path, materials, nobody });
  return {
    ...{ role: role.name, kind: kind.name, exit: String(outcome.code) },
    says: plain(wordsOf(outcome), made.path, place),
    files: plain(changes.join('; '), made.path, place),
  };
}

/** What somebody reads: of what is done only the warnings, as the rest tells of times and rates. */
function wordsOf({ code, stdout, stderr }: Outcome): string {
  return (code === 0 ? stderr : stdout.replace(REPORT, '$1.') + stderr).trim();
}

/** The same words on every run. */
function plain(text: string, path: string, { at, work }: Place): string {
  return text
    .replaceAll(path, 'PATH')
    .replaceAll(path.replace(BAD_BYTE, '\ufffd'), 'PATH-IN-UTF-8')
    .replaceAll(`${work}/`, '')
    .replaceAll(work, 'WORK')
    .replaceAll(at, 'FOLDER')
    .replaceAll(RANDOM, '$1RANDOM')
    .replaceAll(LENGTH, 'not LENGTH: PATH');
}

/** The rest of a report tells of times. */
const REPORT = /^(Copied a disk of .*), in .*\nIt took .*$/m;

/** The folder of temporary files may have a longer name elsewhere. */
const LENGTH = /not \d+: PATH/g;

/** What nobody can foresee in the names of unfinished files. */
const RANDOM = /(\.partial-)[0-9a-f]{8,}/g;
