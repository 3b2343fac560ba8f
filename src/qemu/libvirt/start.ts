import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LacunaError, throwIfAborted } from '../../errors/index.js';
import { AgentGuard } from '../guard/index.js';
import {
  type BackupOptions,
  BackupSession,
  Beginning,
  beginSession,
  Freezer,
  pointOf,
  refuseObstacles,
  SessionDisk,
  type Starter,
  scratchLimit,
} from '../session/index.js';
import { backupXml, checkpointXml } from './documents.js';
import type { Domain } from './domain.js';
import { DomainHold } from './domain-hold.js';
import { keepCheckpoint, restoreCheckpoint } from './kept-checkpoints.js';
import { type PlannedDomain, planDomain } from './plan.js';

/** Begins a backup of a domain. */
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
  return await beginSession(new Start(domain, { folder, planned, options, warnings }));
}

interface Given {
  readonly folder: string;
  readonly planned: PlannedDomain;
  readonly options: BackupOptions;
  readonly warnings: readonly string[];
}

class Start implements Starter {
  readonly #domain: Domain;
  readonly #given: Given;
  readonly #beginning = new Beginning();
  /** Where the socket and the scratch images are. */
  #shared = '';
  /** Bytes that each scratch image may have. */
  readonly #limit: number;
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
      note: (mayBeFrozen) => this.#beginning.write({ frozen: mayBeFrozen ? address : undefined }),
    });
  }

  async run(freezer: Freezer): Promise<BackupSession> {
    const { signal } = this.#given.options;
    const documents = await this.#prepareFolder();
    const { generation } = this.#beginning.journal;
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
    const { folder, journal, disks, control } = this.#beginning;
    const point = pointOf(journal, plan.disks, time, freezer);
    const warnings = [...this.#given.warnings, ...freezer.warnings];
    const parts = {
      ...{ hold: this.#hold!, folder, journal },
      ...{ view: plan.view, point, warnings },
    };
    this.#session = new BackupSession(parts, disks, control);
    this.#watch();
    return this.#session;
  }

  async undo(error: LacunaError): Promise<void> {
    await this.#beginning.undo(error, async () => {
      // What was told to begin may have begun, whatever was answered.
      await this.#hold?.end();
      const { generation } = this.#beginning.journal;
      if (generation !== undefined) await this.#hold?.forget(generation);
    });
  }

  async #prepareFolder(): Promise<{ backup: string; checkpoint: string | undefined }> {
    const { options, planned, folder: base } = this.#given;
    const { user } = planned.definition;
    const isOther = user !== undefined && user.uid !== process.getuid?.();
    let socket = '';
    await this.#beginning.open(base, options, (folder) => {
      this.#shared = isOther ? folder.share(user) : folder.path;
      socket = join(this.#shared, 'nbd.sock');
      return {
        libvirt: this.#domain.address,
        nbd: { server: { type: 'unix', path: socket }, isOurs: true },
        disks: planned.plan.disks.map(({ disk: { name, file } }) => ({ name, file })),
      };
    });
    this.#hold = new DomainHold(this.#domain, base, socket);
    return await this.#writeDocuments(this.#beginning.folder.path, socket);
  }

  async #writeDocuments(folder: string, socket: string) {
    const { options, planned } = this.#given;
    const { names, journal } = this.#beginning;
    const { generation } = journal;
    const plans = planned.plan.disks;
    const { disks } = planned.definition;
    const scratch = (disk: number) => this.#scratch(disk);
    const { base } = options;
    const backup = join(folder, 'backup.xml');
    await writeFile(backup, backupXml({ names, plans, disks, base, socket, scratch }));
    const text = generation === undefined ? undefined : checkpointXml(generation, plans, disks);
    if (text === undefined) return { backup, checkpoint: undefined };
    const checkpoint = join(folder, 'checkpoint.xml');
    await writeFile(checkpoint, text);
    return { backup, checkpoint };
  }

  async #openDisks(): Promise<void> {
    const { names, journal, control, disks } = this.#beginning;
    const { server } = journal.nbd;
    const check = () => {
      if (this.#session?.lost !== undefined) throw this.#session.lost;
    };
    for (const [index, plan] of this.#given.planned.plan.disks.entries()) {
      const dirty = plan.mode === 'incremental' ? names.dirty : undefined;
      const view = { server, name: names.export(index), dirty, canRelease: false };
      const link = { signal: control.signal, check };
      disks.push(await SessionDisk.open(plan, view, link));
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
