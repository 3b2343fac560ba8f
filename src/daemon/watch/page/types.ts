/** What the server tells, as docs/watch.md describes it. */

export interface Bitmap {
  readonly name: string;
  readonly granularity: number;
  readonly dirtyBytes: number | null;
  readonly recording: boolean;
  readonly busy: boolean;
  readonly persistent: boolean;
  readonly inconsistent: boolean;
}

export interface GraphNode {
  readonly name: string;
  readonly driver: string;
  readonly size: number;
  readonly writable: boolean;
  readonly device: string;
  readonly bitmaps: readonly Bitmap[];
}

export interface Graph {
  readonly nodes: readonly GraphNode[];
  readonly users: readonly {
    readonly name: string;
    readonly kind: string;
    readonly writable: boolean;
  }[];
  readonly edges: readonly {
    readonly parent: string;
    readonly child: string;
    readonly node: string;
  }[];
}

export type Verb =
  | 'pause'
  | 'resume'
  | 'complete'
  | 'cancel'
  | 'finalize'
  | 'stop'
  | 'change'
  | 'dismiss';

export interface Job {
  readonly id: string;
  readonly type: string;
  readonly nodes: readonly string[];
  readonly state: 'running' | 'paused' | 'waiting' | 'pending' | 'done' | 'failed' | 'stopped';
  readonly isReady: boolean;
  readonly totalBytes: number;
  readonly doneBytes: number;
  readonly bytesPerSecond: number;
  readonly remainingMs?: number;
  readonly elapsedMs: number;
  readonly error?: string;
  readonly copyMode?: string;
  readonly verbs: readonly Verb[];
}

export interface Export {
  readonly name: string;
  readonly node: string;
  readonly writable: boolean;
  readonly clients: readonly {
    readonly client: number;
    readonly address?: string;
    readonly since: number;
  }[];
}

export interface Traffic {
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly requests: number;
  readonly errors: number;
}

export interface Happening {
  readonly number: number;
  readonly at: number;
  readonly kind: string;
  readonly text: string;
  readonly isBad: boolean;
}

export interface DiskMap {
  readonly node: string;
  readonly size: number;
  readonly cellBytes: number;
  readonly data: readonly number[];
  readonly zero: readonly number[];
  readonly hole: readonly number[];
  readonly dirty?: readonly number[];
  readonly bitmap?: string;
  readonly isWhole: boolean;
}
