/** `npm run bench -- NAME [--smoke] [--json]`: runs one bench, or says which there are. */
import { parseArgs } from 'node:util';
import { benchBitmap } from './bitmap.js';
import { benchCopy } from './copy.js';
import { benchDaemon } from './daemon.js';
import { benchDirtyBitmaps } from './dirty-bitmaps.js';
import { benchGraph } from './graph.js';
import { benchLive } from './live.js';
import { benchNbd } from './nbd.js';
import { benchQcow2 } from './qcow2.js';
import { benchRepository } from './repository.js';
import type { Bench } from './support/bench.js';

const BENCHES: Record<string, Bench> = {
  bitmap: benchBitmap,
  copy: benchCopy,
  daemon: benchDaemon,
  'dirty-bitmaps': benchDirtyBitmaps,
  graph: benchGraph,
  live: benchLive,
  nbd: benchNbd,
  qcow2: benchQcow2,
  repository: benchRepository,
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    smoke: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    runs: { type: 'string', default: '5' },
    only: { type: 'string' },
  },
});

const bench = BENCHES[positionals[0]];
if (bench === undefined) {
  console.error(`Name a bench: ${Object.keys(BENCHES).join(', ')}`);
  process.exit(2);
}
await bench({
  smoke: values.smoke,
  json: values.json,
  runs: values.smoke ? 0 : Number(values.runs),
  only: values.only,
});
