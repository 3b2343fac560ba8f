import type { Graph, NodeDescription } from '../../graph/index.js';
import type { QmpVersion } from '../../qmp/index.js';
import type { AllowedFiles } from './allowed-files.js';
import type { BackupAccess } from './backup-access.js';
import type { Tell } from './daemon-job.js';
import { Exports } from './exports.js';
import { Jobs } from './jobs.js';
import { Objects } from './objects.js';
import { Thresholds } from './thresholds.js';

/** What the control of a daemon is made of. */
export interface ControlOptions {
  readonly graph: Graph;
  readonly files: AllowedFiles;
  readonly version: QmpVersion;
  readonly tell: Tell;
  readonly quit: () => void;
}

/** What a client has said of a node, checked. */
export interface NodeWish {
  readonly driver: string;
  readonly [key: string]: unknown;
}

/** What commands work on. */
export class Control {
  readonly graph: Graph;
  readonly files: AllowedFiles;
  readonly version: QmpVersion;
  readonly jobs: Jobs;
  readonly exports: Exports;
  readonly thresholds: Thresholds;
  /** Limits, and what TLS needs. */
  readonly objects = new Objects();
  /** Drivers of nodes as clients have called them, where they are called otherwise here. */
  readonly drivers = new Map<string, string>();
  /** How nodes that clients have added were described. */
  readonly described = new Map<string, NodeDescription>();
  /** What clients have said of nodes, by their names: also of those that were described inside another one. */
  readonly said = new Map<string, NodeWish>();
  /** Views of disks for backup programs, by their names. */
  readonly accesses = new Map<string, BackupAccess>();
  /** Ends the daemon, behind the answer. */
  readonly quit: () => void;

  constructor({ graph, files, version, tell, quit }: ControlOptions) {
    this.graph = graph;
    this.version = version;
    this.files = files;
    // The changes of a graph have their turns: behind an empty one, all that was asked for before has begun.
    this.jobs = new Jobs(tell, () => graph.changeBitmaps({}));
    this.exports = new Exports(graph, tell);
    this.thresholds = new Thresholds(graph, tell);
    this.quit = quit;
  }

  /** Stops jobs, lets requests in flight end, and stores bitmaps. */
  async close(): Promise<void> {
    const failures: unknown[] = [];
    this.thresholds.close();
    const note = (error: unknown) => void failures.push(error);
    // What waits for a limit would hold up the end.
    this.objects.endLimits();
    await this.jobs.stop().catch(note);
    await this.exports.close().catch(note);
    await this.graph.close().catch(note);
    if (failures.length > 0) throw failures[0];
  }
}
