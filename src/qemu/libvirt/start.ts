import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LacunaError, throwIfAborted } from '../../errors/index.js';
import { AgentGuard } from '../guard/index.js';
import {
  type BackupOptions,
  BackupSession,
  Freezer,
  pointOf,
  refuseObstacles,
  SessionDisk,
  scratchLimit,
} from '../session/index.js';
import {
  type Journal,
  newGeneration,
  SessionFolder,
  SessionNames,
  writeJournal,
} from '../state/index.js';
import { backupXml, checkpointXml } from './documents.js';
import type { Domain } from './domain.js';
import { DomainHold } from './domain-hold.js';
import { keepCheckpoint, restoreCheckpoint } from './kept-checkpoints.js';
import { type PlannedDomain, planDomain } from './plan.js';

/** Begins a backup of a domain. When it fails, everything that was begun is undone before the error is thrown. */
export async function startDomainSession(
  domain: Domain,
  folder: string,
  options: BackupOptions,
): Promise<BackupSession> {
  const { base } = options;
  const warnings = base === undefined ? [] : await restoreCheckpoint(domain, folder, base);
  const planned = await planDomain(domain, folder, options);
  refuseObstacles(planned.plan, domain.name);
  if (planned.broken !== undefined && options.mode !== 'copy') {
    // libvirt makes no checkpoint over a broken one, and nothing can begin from it any more.
    warnings.push(...(await domain.deleteCheckpoint(planned.broken)));
  }
  const start = new Start(domain, { folder, planned, options, warnings });
  const freezer = await start.freezer();
  try {
    return await start.run(freezer);
  } catch (error) {
    await start.undo(error as LacunaError);
    throw error;
  } finally {
    await freezer.close();
  }
}

interface Given {
  readonly folder: string;
  readonly planned: PlannedDomain;
  readonly options: BackupOptions;
  readonly warnings: readonly string[];
}

class Start {
  readonly #domain: Domain;
  readonly #given: Given;
  readonly #names = SessionNames.random();
  readonly #control = new AbortController();
  readonly #disks: SessionDisk[] = [];
  #folder: SessionFolder | undefined;
  /** Where the socket and the scratch images are. */
  #shared = '';
  /** Bytes that each scratch image may have. */
  readonly #limit: number;
  #journal: Journal | undefined;
  #hold: DomainHold | undefined;
  #session: BackupSession | undefined;

  constructor(domain: Domain, given: Given) {
    this.#domain = domain;
    this.#given = given;
    const { disks, scratchFreeBytes } = given.planned.plan;
    this.#limit =
      given.options.scratchBytes ?? scratchLimit(given.folder, scratchFreeBytes, disks.length);
  }

  /** Nothing is made yet. */
  freezer(): Promise<Freezer> {
    const { address, name } = this.#domain;
    const { options, planned } = this.#given;
    const { hasAgent } = planned.definition;
    const { freezeTimeoutMs, freezeDeadlineMs, freeze = hasAgent ? 'try' : 'off' } = options;
    const connect = async () => {
      if (!hasAgent) throw noAgent(name);
      return await AgentGuard.start(address);
    };
    return Freezer.prepare(connect, {
      policy: freeze,
      timeoutMs: freezeTimeoutMs,
      deadlineMs: freezeDeadlineMs,
      note: (mayBeFrozen) => this.#write(mayBeFrozen ? { frozen: address } : { frozen: undefined }),
    });
  }

  async run(freezer: Freezer): Promise<BackupSession> {
    const { signal } = this.#given.options;
    const documents = await this.#prepareFolder();
    const { generation } = this.#journal!;
    throwIfAborted(signal);
    let time = '';
    await freezer.during(async () => {
      await this.#domain.beginBackup(documents.backup, documents.checkpoint);
      time = new Date().toISOString();
    });
    if (generation !== undefined && documents.checkpoint !== undefined) {
      await keepCheckpoint(this.#domain, this.#given.folder, generation);
    }
    await this.#openDisks();
    throwIfAborted(signal);
    const { plan } = this.#given.planned;
    const point = pointOf(this.#journal!, plan.disks, time, freezer);
    const warnings = [...this.#given.warnings, ...freezer.warnings];
    const parts = {
      ...{ hold: this.#hold!, folder: this.#folder!, journal: this.#journal! },
      ...{ view: plan.view, point, warnings },
    };
    this.#session = new BackupSession(parts, this.#disks, this.#control);
    this.#watch();
    return this.#session;
  }

  /** Takes away what was made; what that cannot do is left to the journal, and said. */
  async undo(error: LacunaError): Promise<void> {
    this.#control.abort(error);
    await Promise.all(this.#disks.map((disk) => disk.close()));
    const [folder, hold] = [this.#folder, this.#hold];
    if (folder === undefined) return;
    try {
      // What was told to begin may have begun, whatever was answered.
      await hold?.end();
      const generation = this.#journal?.generation;
      if (generation !== undefined) await hold?.forget(generation);
    } catch (failure) {
      folder.leave();
      error.message += ` (and something is left in the domain: ${(failure as Error).message})`;
      return;
    }
    // What may be frozen is for recover() to thaw.
    if (this.#journal?.frozen !== undefined) folder.leave();
    else folder.remove();
  }

  /** The journal says everything before any of it is there. */
  async #prepareFolder(): Promise<{ backup: string; checkpoint: string | undefined }> {
    const { options, planned, folder: base } = this.#given;
    const { mode, generation = newGeneration(), keepBase = false } = options;
    const folder = await SessionFolder.create(base, this.#names.prefix);
    this.#folder = folder;
    const { user } = planned.definition;
    const isOther = user !== undefined && user.uid !== process.getuid?.();
    this.#shared = isOther ? folder.share(user) : folder.path;
    const socket = join(this.#shared, 'nbd.sock');
    this.#journal = {
      format: 'lacuna backup session',
      version: 1,
      prefix: this.#names.prefix,
      libvirt: this.#domain.address,
      nbd: { server: { type: 'unix', path: socket }, isOurs: true },
      ...(mode !== 'copy' && { generation }),
      ...(options.base !== undefined && { base: options.base }),
      keepsBase: keepBase || mode === 'copy',
      disks: planned.plan.disks.map(({ disk: { name, file } }) => ({ name, file })),
      phase: 'begun',
    };
    await this.#write({});
    this.#hold = new DomainHold(this.#domain, base, socket);
    return await this.#writeDocuments(folder.path, socket);
  }

  async #writeDocuments(folder: string, socket: string) {
    const { options, planned } = this.#given;
    const { generation } = this.#journal!;
    const plans = planned.plan.disks;
    const { disks } = planned.definition;
    const scratch = (disk: number) => this.#scratch(disk);
    const { base } = options;
    const backup = join(folder, 'backup.xml');
    await writeFile(backup, backupXml({ names: this.#names, plans, disks, base, socket, scratch }));
    const text = generation === undefined ? undefined : checkpointXml(generation, plans, disks);
    if (text === undefined) return { backup, checkpoint: undefined };
    const checkpoint = join(folder, 'checkpoint.xml');
    await writeFile(checkpoint, text);
    return { backup, checkpoint };
  }

  async #write(changed: Partial<Journal>): Promise<void> {
    this.#journal = { ...this.#journal!, ...changed };
    await writeJournal(this.#folder!.path, this.#journal);
  }

  async #openDisks(): Promise<void> {
    const { server } = this.#journal!.nbd;
    const check = () => {
      if (this.#session?.lost !== undefined) throw this.#session.lost;
    };
    for (const [index, plan] of this.#given.planned.plan.disks.entries()) {
      const dirty = plan.mode === 'incremental' ? this.#names.dirty : undefined;
      const view = { server, name: this.#names.export(index), dirty, canRelease: false };
      const link = { signal: this.#control.signal, check };
      this.#disks.push(await SessionDisk.open(plan, view, link));
    }
  }

  #watch(): void {
    const { plan } = this.#given.planned;
    const files = plan.disks.map((_, index) => this.#scratch(index));
    this.#hold!.watch(files, this.#limit, (failure) => this.#session?.lose(failure));
  }

  #scratch(disk: number): string {
    return join(this.#shared, `${disk}.qcow2`);
  }
}

function noAgent(device: string): LacunaError {
  return new LacunaError(
    'ERR_AGENT_ABSENT',
    `${device}: no guest agent is connected to the domain: start qemu-guest-agent in the guest, and give the domain its channel`,
    { device },
  );
}
