/** The folder of a repository: how it is made, known again, and read. */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { LacunaError } from '../../errors/index.js';
import { followed } from '../../files/index.js';
import { MachinePoints } from '../disks/index.js';
import {
  attempt,
  createFile,
  foldersIn,
  isName,
  MachinePlaces,
  machinesFolder,
  makeFolder,
  NOT_SEALED,
  namesIn,
  REPOSITORY_FILE,
  type RepositoryOperations,
  readIfThere,
  repositoryOperations,
  SCHEMA_FILE,
  seal,
  sha256,
  unseal,
} from '../layout/index.js';
import { newer, readManifests, readNewestChain, schemaText } from '../manifest/index.js';

export interface StoreOptions {
  /** Make a repository where the folder is not there, or empty. */
  readonly create?: boolean;
  /** Where one would be made, take it for one that is empty, and make nothing. Default false. */
  readonly absent?: boolean;
  readonly operations?: RepositoryOperations;
  /** Bytes of an image that `prune` always merges. */
  readonly smallImage?: number;
}

/** Smaller ones cost less to write again than many files cost to open. */
const SMALL_IMAGE = 64 * 2 ** 20;

export class Store {
  /** The folder, behind all links. */
  readonly path: string;
  readonly id: string;
  readonly operations: RepositoryOperations;
  /** Bytes of an image that `prune` always merges. */
  readonly smallImage: number;
  /** Of the schema that the repository was made with. */
  readonly schemaSha256: string;

  /** @throws LacunaError ERR_REPOSITORY_FORMAT, ERR_REPOSITORY_DAMAGED, ERR_REPOSITORY_FILE */
  static open(folder: string, options: StoreOptions = {}): Store {
    const { create = false, absent = false, operations: given = repositoryOperations } = options;
    const path = attempt('open', folder, () => followed(folder.replace(/(?<=.)\/+$/, '')));
    const file = join(path, REPOSITORY_FILE);
    let bytes = readIfThere(file);
    if (bytes === undefined) {
      if (!create && !absent) throw noRepository(path);
      checkEmpty(path);
      if (absent) return new Store(path, randomUUID(), '', options);
      make(path, given);
      bytes = readIfThere(file);
    }
    const found = bytes && unseal(bytes);
    if (found === undefined) {
      const message = `${file}: ${NOT_SEALED}`;
      throw new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: file });
    }
    if (found.format !== 'lacuna-repository') throw noRepository(path);
    if (found.version !== 1) throw newer(file, found.version);
    return new Store(path, String(found.id), String(found.schemaSha256), options);
  }

  private constructor(
    path: string,
    id: string,
    schemaSha256: string,
    { operations = repositoryOperations, smallImage = SMALL_IMAGE }: StoreOptions,
  ) {
    this.path = path;
    this.id = id;
    this.schemaSha256 = schemaSha256;
    this.operations = operations;
    this.smallImage = smallImage;
  }

  /** The machines that have points, or had. */
  machines(): string[] {
    return foldersIn(machinesFolder(this.path)).filter(isName);
  }

  places(machine: string): MachinePlaces {
    return new MachinePlaces(this.path, machine);
  }

  /** The points of a machine, which may have none. */
  points(machine: string): MachinePoints {
    const places = this.places(machine);
    return new MachinePoints(places, readManifests(places, this.id));
  }

  /** Its newest point with those below it, as an increment needs them; undefined where all points have to be looked at. */
  newestChain(machine: string): MachinePoints | undefined {
    const places = this.places(machine);
    const chain = readNewestChain(places, this.id);
    return chain && new MachinePoints(places, chain);
  }

  /** @throws LacunaError ERR_POINT_UNKNOWN for a machine that is not there. */
  checkMachine(machine: string): void {
    const machines = this.machines();
    if (machines.includes(machine)) return;
    const message = `${this.path} has no machine ${machine}; it has: ${machines.join(', ') || 'none'}`;
    throw new LacunaError('ERR_POINT_UNKNOWN', message, { device: this.path });
  }
}

function noRepository(path: string): LacunaError {
  const message = `${path} is not a repository: there is no ${REPOSITORY_FILE} in it. "lacuna backup" makes one in a folder that is new or empty`;
  return new LacunaError('ERR_REPOSITORY_FORMAT', message, { device: path });
}

/** What making a repository leaves when it dies, and what a new file system has. */
const MAY_BE_THERE: ReadonlySet<string> = new Set([SCHEMA_FILE, 'machines', 'lost+found']);

/** A repository is made in a folder that holds nothing else. */
function checkEmpty(path: string): void {
  const others = namesIn(path).filter(
    (name) => !MAY_BE_THERE.has(name) && !name.includes('.partial-'),
  );
  if (others.length > 0) {
    const message = `${path} is not a repository, and not empty (there is ${others[0]}): name a folder that is new or empty`;
    throw new LacunaError('ERR_REPOSITORY_FORMAT', message, { device: path });
  }
  if (namesIn(machinesFolder(path)).length > 0) {
    const file = join(path, REPOSITORY_FILE);
    const message = `${file} is not there, and the folder has machines: bring it back from a copy of the repository`;
    throw new LacunaError('ERR_REPOSITORY_DAMAGED', message, { device: file });
  }
}

/** The file that says what the folder is comes last. */
function make(path: string, operations: RepositoryOperations): void {
  makeFolder(machinesFolder(path), operations);
  const schema = Buffer.from(schemaText());
  attempt('remove', path, () => fs.rmSync(join(path, SCHEMA_FILE), { force: true }));
  createFile(join(path, SCHEMA_FILE), schema, operations);
  const document = {
    format: 'lacuna-repository',
    version: 1,
    id: randomUUID(),
    created: new Date().toISOString(),
    schemaSha256: sha256(schema),
  };
  createFile(join(path, REPOSITORY_FILE), seal(document), operations);
}
