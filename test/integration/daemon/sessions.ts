/** QMP sessions that are played on qemu-storage-daemon and on ours. FOLDER stands for a folder of each one's own. */

/** Why an answer may differ, by a short name. Each is justified in docs/daemon.md. */
export const DIFFERENCES = {
  'own words': 'what goes wrong with files, images and jobs is told in our own words',
  'refused at once': 'what cannot begin is refused by its command, not by a job that fails at once',
  'only grows': 'a disk in use is never made smaller',
  'as written': 'how much of a disk a job counts is its own matter',
  'needs a format': 'the format of a backing file is never guessed',
} as const;

export type Difference = keyof typeof DIFFERENCES;

/** A command with its arguments; one that waits for a state of a job; or what is done from outside. */
export type Step =
  | readonly [command: string, args?: object, differs?: Difference]
  | { readonly job: string; readonly becomes: string };

export interface Session {
  readonly name: string;
  readonly steps: readonly Step[];
  /** Whether the events differ. */
  readonly events?: Difference;
}

const MIB = 1 << 20;

const nullNode = (name: string, size = MIB): Step => [
  'blockdev-add',
  { driver: 'null-co', 'node-name': name, size, 'read-zeroes': true },
];
const raw = (name: string): Step => [
  'blockdev-add',
  { driver: 'raw', 'node-name': name, file: { driver: 'file', filename: `FOLDER/${name}.raw` } },
];
const qcow2 = (name: string, others = {}): Step => [
  'blockdev-add',
  {
    ...{ driver: 'qcow2', 'node-name': name, ...others },
    file: { driver: 'file', filename: `FOLDER/${name}.qcow2` },
  },
];
const server: Step = ['nbd-server-start', { addr: { type: 'unix', data: { path: 'FOLDER/nbd' } } }];
const bitmap = (verb: string, name: string, others = {}, node = 'disk'): Step => [
  `block-dirty-bitmap-${verb}`,
  { node, name, ...others },
];
const job = (verb: string, id: string): Step => [`job-${verb}`, { id }];
const block = (verb: string, device: string, others = {}): Step => [
  `block-job-${verb}`,
  { device, ...others },
];
const becomes = (id: string, state: string): Step => ({ job: id, becomes: state });
const transaction = (actions: object[], properties?: object): Step => [
  'transaction',
  { actions, ...(properties && { properties }) },
];
const action = (verb: string, name: string, others = {}) => ({
  type: `block-dirty-bitmap-${verb}`,
  data: { node: 'disk', name, ...others },
});
const backup = (others: object): Step => [
  'blockdev-backup',
  { 'job-id': 'j', device: 'a', target: 'b', sync: 'full', ...others },
];
const mirror = (others: object): Step => [
  'blockdev-mirror',
  { 'job-id': 'm', device: 'a', target: 'b', sync: 'full', ...others },
];
/** QEMU begins it, and lets it fail. */
const mirrorTo = (target: string): Step => [
  'blockdev-mirror',
  { 'job-id': 'm', device: 'a', target, sync: 'full' },
  'refused at once',
];
const create = (options: object, id = 'c'): Step => ['blockdev-create', { 'job-id': id, options }];
/** Creates that are played to their end, where the job is looked at, and goes. */
const created = (options: object, differs?: Difference): Step[] => [
  create(options),
  becomes('c', 'concluded'),
  differs === undefined ? ['query-jobs'] : ['query-jobs', {}, differs],
  job('dismiss', 'c'),
];
const image = (others: object) => ({ driver: 'qcow2', file: 'f', size: MIB, ...others });
const fileNode: Step = [
  'blockdev-add',
  { driver: 'file', 'node-name': 'f', filename: 'FOLDER/new.qcow2' },
];
const madeImage: Step[] = [
  qcow2('new'),
  ['query-named-block-nodes', { flat: true }],
  ['blockdev-del', { 'node-name': 'new' }],
];
const newFile = { driver: 'file', filename: 'FOLDER/new.qcow2', size: 0 };
const limits = { path: '/objects/g', property: 'limits' };
const group = (id: string, given?: object): Step => [
  'object-add',
  { 'qom-type': 'throttle-group', id, ...(given && { limits: given }) },
];
const setLimits = (value: unknown): Step => ['qom-set', { ...limits, value }];
const reopen = (...options: object[]): Step => ['blockdev-reopen', { options }];
const sha = (name: string): Step => ['x-debug-block-dirty-bitmap-sha256', { node: 'disk', name }];

export const SESSIONS: readonly Session[] = [
  {
    name: 'a node is added and removed',
    steps: [nullNode('a'), ['blockdev-del', { 'node-name': 'a' }], ['query-named-block-nodes']],
  },
  { name: 'a name is given twice', steps: [nullNode('a'), nullNode('a')] },
  { name: 'a name that is none', steps: [nullNode('1a'), nullNode('a b'), nullNode('')] },
  {
    name: 'a node without a name',
    steps: [['blockdev-add', { driver: 'null-co', size: MIB }]],
  },
  {
    name: 'a node over one that is not there',
    steps: [
      ['blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'nobody' }],
      ['blockdev-add', { driver: 'qcow2', 'node-name': 'r', file: 'nobody' }],
      ['blockdev-add', { driver: 'qcow2', 'node-name': 'r', file: 5 }],
    ],
  },
  {
    name: 'drivers and members that are wrong',
    steps: [
      ['blockdev-add', { driver: 'nope', 'node-name': 'x' }],
      ['blockdev-add', { 'node-name': 'x' }],
      ['blockdev-add', { driver: 'file', 'node-name': 'x' }],
      ['blockdev-add', { driver: 'null-co', 'node-name': 'x', colour: 1 }],
      ['blockdev-add', { driver: 'null-co', 'node-name': 'x', size: 'large' }],
      ['blockdev-add', { driver: 'null-co', 'node-name': 5 }],
      ['blockdev-add', { driver: 'raw', 'node-name': 'x', file: { driver: 'file' } }],
      ['blockdev-add', { driver: 'raw', 'node-name': 'x', file: { driver: 'x' } }],
      ['blockdev-add', { driver: 'null-co', 'node-name': 'x', 'read-only': 'on' }],
      ['blockdev-add', { driver: 'nbd', 'node-name': 'x', server: { type: 'unix' } }],
      ['blockdev-add', { driver: 'nbd', 'node-name': 'x' }],
    ],
  },
  {
    name: 'a file that is not there',
    steps: [
      ['blockdev-add', { driver: 'file', 'node-name': 'f', filename: '/nowhere/f' }, 'own words'],
    ],
  },
  {
    name: 'a node that is in use',
    steps: [
      ['blockdev-add', { driver: 'file', 'node-name': 'f', filename: 'FOLDER/disk.raw' }],
      ['blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'f' }],
      ['blockdev-del', { 'node-name': 'f' }],
      ['blockdev-del', { 'node-name': 'r' }],
      ['blockdev-del', { 'node-name': 'f' }],
      ['blockdev-del', { 'node-name': 'f' }],
    ],
  },
  {
    name: 'the nodes of images',
    steps: [qcow2('disk'), ['query-named-block-nodes', { flat: true }]],
  },
  {
    name: 'a disk becomes larger',
    steps: [
      qcow2('disk'),
      ['block_resize', { 'node-name': 'disk', size: 2 * MIB }],
      ['block_resize', { 'node-name': 'nobody', size: 2 * MIB }],
      ['block_resize', { device: 'nobody', size: 2 * MIB }],
      ['block_resize', { size: 2 * MIB }],
      ['block_resize', { 'node-name': 'disk', size: 512 }, 'only grows'],
    ],
  },
  {
    name: 'bitmaps come and go',
    steps: [
      qcow2('disk'),
      bitmap('add', 'a', { persistent: true }),
      bitmap('add', 'b', { granularity: 4096, disabled: true }),
      bitmap('add', 'a'),
      bitmap('add', ''),
      bitmap('add', 'c', { granularity: 1000 }),
      bitmap('add', 'c', { granularity: 256 }),
      bitmap('add', 'x'.repeat(1023)),
      bitmap('add', 'x'.repeat(1024)),
      bitmap('add', 'c', {}, 'nobody'),
      ['query-named-block-nodes'],
      bitmap('remove', 'a'),
      bitmap('remove', 'a'),
      bitmap('remove', 'a', {}, 'nobody'),
      bitmap('clear', 'zz'),
      bitmap('enable', 'zz'),
      bitmap('disable', 'zz'),
      bitmap('clear', 'b'),
      bitmap('enable', 'b'),
      bitmap('enable', 'b'),
      bitmap('disable', 'b'),
      bitmap('disable', 'b'),
    ],
  },
  {
    name: 'bitmaps of a raw disk are not kept',
    steps: [raw('disk'), bitmap('add', 'a', { persistent: true }), bitmap('add', 'b')],
  },
  {
    name: 'digests of bitmaps',
    steps: [
      qcow2('disk'),
      bitmap('add', 'a'),
      bitmap('add', 'b', { granularity: 512 }),
      sha('a'),
      sha('b'),
      sha('zz'),
      ['x-debug-block-dirty-bitmap-sha256', { node: 'nobody', name: 'a' }],
    ],
  },
  {
    name: 'bitmaps are merged',
    steps: [
      qcow2('disk'),
      bitmap('add', 'a'),
      bitmap('add', 'b'),
      ['block-dirty-bitmap-merge', { node: 'disk', target: 'a', bitmaps: ['b'] }],
      ['block-dirty-bitmap-merge', { node: 'disk', target: 'a', bitmaps: ['a'] }],
      ['block-dirty-bitmap-merge', { node: 'disk', target: 'zz', bitmaps: ['b'] }],
      ['block-dirty-bitmap-merge', { node: 'disk', target: 'a', bitmaps: ['zz'] }],
      [
        'block-dirty-bitmap-merge',
        { node: 'disk', target: 'a', bitmaps: [{ node: 'disk', name: 'b' }] },
      ],
      [
        'block-dirty-bitmap-merge',
        { node: 'disk', target: 'a', bitmaps: [{ node: 'nobody', name: 'b' }] },
      ],
      ['block-dirty-bitmap-merge', { node: 'nobody', target: 'a', bitmaps: ['b'] }],
    ],
  },
  {
    name: 'the NBD server starts and stops',
    steps: [['nbd-server-stop'], server, server, ['nbd-server-stop'], ['nbd-server-stop'], server],
  },
  {
    name: 'addresses that are wrong',
    steps: [
      ['nbd-server-start', { addr: { type: 'unix' } }],
      ['nbd-server-start', { addr: { type: 'unix', data: {} } }],
      ['nbd-server-start', { addr: { type: 'x' } }],
      ['nbd-server-start', { addr: 'x' }],
      ['nbd-server-start', { addr: { type: 'unix', data: { path: 5 } } }],
      ['nbd-server-start', { addr: { type: 'inet', data: { host: 'localhost' } } }],
    ],
  },
  {
    name: 'exports come and go',
    steps: [
      nullNode('a'),
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a' }],
      server,
      ['query-block-exports'],
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'nobody' }],
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a' }],
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a', name: 'b' }],
      ['block-export-add', { type: 'nbd', id: 'f', 'node-name': 'a' }],
      ['block-export-add', { type: 'nbd', id: '9', 'node-name': 'a', name: 'b' }],
      ['block-export-add', { type: 'nbd', id: 'f', 'node-name': 'a', name: 'b' }],
      ['query-block-exports'],
      ['blockdev-del', { 'node-name': 'a' }],
      ['block-export-del', { id: 'e' }],
      ['block-export-del', { id: 'e' }],
      ['block-export-del', { id: 'f', mode: 'hard' }],
      ['block-export-del', { id: 'f', mode: 'x' }],
      ['query-block-exports'],
      ['blockdev-del', { 'node-name': 'a' }],
    ],
  },
  {
    name: 'exports end with their server',
    steps: [
      nullNode('a'),
      server,
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a' }],
      ['nbd-server-stop'],
      ['query-block-exports'],
    ],
  },
  {
    name: 'exports in the older form',
    steps: [
      nullNode('a'),
      ['nbd-server-add', { device: 'a' }],
      server,
      ['nbd-server-add', { device: 'a' }],
      ['nbd-server-add', { device: 'a' }],
      ['nbd-server-add', { device: 'a', name: 'b' }],
      ['nbd-server-add', { device: 'nobody', name: 'c' }],
      ['query-block-exports'],
      ['nbd-server-remove', { name: 'zz' }],
      ['nbd-server-remove', { name: 'b' }],
      ['nbd-server-remove', { name: 'a', mode: 'hard' }],
      ['query-block-exports'],
    ],
  },
  {
    name: 'a disk that is read-only is not served for writing',
    steps: [
      ['blockdev-add', { driver: 'null-co', 'node-name': 'a', size: MIB, 'read-only': true }],
      server,
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a', writable: true }],
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'a' }],
    ],
  },
  {
    name: 'bitmaps that are served',
    steps: [
      qcow2('disk'),
      server,
      bitmap('add', 'a', { disabled: true }),
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk', bitmaps: ['zz'] }],
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk', bitmaps: ['a'] }],
      bitmap('remove', 'a'),
      bitmap('clear', 'a'),
      bitmap('enable', 'a'),
      ['block-export-del', { id: 'e' }],
      bitmap('remove', 'a'),
    ],
  },
  {
    name: 'a transaction changes bitmaps',
    steps: [
      qcow2('disk'),
      transaction([action('add', 'a'), action('add', 'b', { disabled: true })]),
      transaction([action('disable', 'a'), action('enable', 'b'), action('clear', 'b')]),
      ['query-named-block-nodes'],
      transaction([
        action('add', 'c'),
        {
          type: 'block-dirty-bitmap-merge',
          data: { node: 'disk', target: 'c', bitmaps: ['a', 'b'] },
        },
      ]),
      transaction([action('remove', 'a'), action('remove', 'b')]),
      ['query-named-block-nodes'],
    ],
  },
  {
    name: 'a transaction that fails midway leaves nothing',
    steps: [
      qcow2('disk'),
      transaction([action('add', 'a'), action('add', 'a')]),
      transaction([action('add', 'a'), action('clear', 'zz')]),
      transaction([action('add', 'a'), { type: 'abort', data: {} }]),
      transaction([
        action('add', 'a'),
        { type: 'block-dirty-bitmap-merge', data: { node: 'disk', target: 'a', bitmaps: ['zz'] } },
      ]),
      transaction([action('add', 'a', { node: 'nobody' })]),
      ['query-named-block-nodes'],
      bitmap('add', 'k'),
      transaction([action('disable', 'k'), action('clear', 'k'), { type: 'abort', data: {} }]),
      transaction([action('remove', 'k'), { type: 'abort', data: {} }]),
      ['query-named-block-nodes'],
    ],
  },
  {
    name: 'transactions that are wrong',
    steps: [
      transaction([]),
      ['transaction'],
      transaction([{ type: 'x', data: {} }]),
      transaction([{ type: 'abort' }]),
      transaction([{ data: {} }]),
      ['transaction', { actions: [5] }],
      ['transaction', { actions: 'x' }],
      transaction([{ type: 'abort', data: { x: 1 } }]),
      transaction([], { 'completion-mode': 'x' }),
      transaction([], { x: 1 }),
    ],
  },
  {
    name: 'a backup runs to its end',
    steps: [
      nullNode('a'),
      raw('b'),
      backup({}),
      becomes('j', 'null'),
      ['query-jobs'],
      ['query-block-jobs'],
    ],
  },
  {
    name: 'a backup that is kept until it is dismissed',
    steps: [
      nullNode('a'),
      raw('b'),
      backup({ 'auto-dismiss': false }),
      becomes('j', 'concluded'),
      ['query-jobs'],
      ['query-block-jobs'],
      job('cancel', 'j'),
      job('pause', 'j'),
      job('complete', 'j'),
      block('pause', 'j'),
      block('set-speed', 'j', { speed: 5 }),
      ['block-job-finalize', { id: 'j' }],
      backup({}),
      job('dismiss', 'j'),
      job('dismiss', 'j'),
      ['query-jobs'],
    ],
  },
  {
    name: 'backups that cannot be',
    steps: [
      nullNode('a'),
      raw('b'),
      nullNode('small', 65536),
      backup({ device: 'nobody' }),
      backup({ target: 'nobody' }),
      backup({ target: 'small' }),
      backup({ target: 'a' }),
      backup({ sync: 'incremental' }),
      backup({ sync: 'bitmap' }),
      backup({ sync: 'incremental', bitmap: 'zz' }),
      backup({ bitmap: 'zz' }),
      backup({ bitmap: 'zz', 'bitmap-mode': 'always' }),
      backup({ sync: 'none', bitmap: 'zz', 'bitmap-mode': 'always' }),
      backup({ sync: 'incremental', bitmap: 'zz', 'bitmap-mode': 'always' }),
      backup({ 'bitmap-mode': 'always' }),
      backup({ sync: 'x' }),
      backup({ 'job-id': '9' }),
      ['blockdev-backup', { device: 'a', target: 'b', sync: 'full' }],
      ['query-jobs'],
    ],
  },
  {
    name: 'a backup of what is dirty',
    steps: [
      qcow2('disk'),
      raw('b'),
      bitmap('add', 'k'),
      backup({ device: 'disk', sync: 'incremental', bitmap: 'k' }),
      becomes('j', 'null'),
      backup({ device: 'disk', sync: 'bitmap', bitmap: 'k', 'bitmap-mode': 'never' }),
      becomes('j', 'null'),
      sha('k'),
    ],
    events: 'as written',
  },
  {
    name: 'a backup in a transaction',
    steps: [
      qcow2('disk'),
      raw('b'),
      transaction([
        action('add', 'k'),
        {
          type: 'blockdev-backup',
          data: { 'job-id': 'j', device: 'disk', target: 'b', sync: 'full' },
        },
      ]),
      becomes('j', 'null'),
      ['query-named-block-nodes'],
    ],
    events: 'as written',
  },
  {
    name: 'a transaction whose backup cannot be leaves nothing',
    steps: [
      qcow2('disk'),
      transaction([
        action('add', 'k'),
        {
          type: 'blockdev-backup',
          data: { 'job-id': 'j', device: 'disk', target: 'nobody', sync: 'full' },
        },
      ]),
      ['query-named-block-nodes'],
      ['query-jobs'],
    ],
  },
  {
    name: 'a mirror becomes ready, and is completed',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({}),
      becomes('m', 'ready'),
      job('complete', 'm'),
      becomes('m', 'null'),
      ['query-jobs'],
    ],
    events: 'as written',
  },
  {
    name: 'a mirror becomes ready, and is cancelled',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({}),
      becomes('m', 'ready'),
      block('cancel', 'm'),
      becomes('m', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'a mirror becomes ready, and is cancelled by force',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({}),
      becomes('m', 'ready'),
      block('cancel', 'm', { force: true }),
      becomes('m', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'mirrors that cannot be',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({ device: 'nobody' }),
      mirror({ target: 'nobody' }),
      mirror({ target: 'a' }),
      mirror({ 'copy-mode': 'x' }),
      mirror({ 'job-id': '9' }),
      ['query-jobs'],
    ],
  },
  {
    name: 'a mirror into a disk that is too small',
    steps: [nullNode('a'), nullNode('small', 65536), mirrorTo('small')],
    events: 'refused at once',
  },
  {
    name: 'a backup that waits to be finalized',
    steps: [
      nullNode('a'),
      raw('b'),
      backup({ 'auto-finalize': false, 'auto-dismiss': false }),
      becomes('j', 'pending'),
      ['query-jobs'],
      ['query-block-jobs'],
      job('pause', 'j'),
      job('complete', 'j'),
      job('dismiss', 'j'),
      block('set-speed', 'j', { speed: 5 }),
      job('finalize', 'j'),
      becomes('j', 'concluded'),
      job('finalize', 'j'),
      job('dismiss', 'j'),
      ['query-jobs'],
    ],
  },
  {
    name: 'a backup that is cancelled in place of being finalized',
    steps: [
      nullNode('a'),
      raw('b'),
      backup({ 'auto-finalize': false }),
      becomes('j', 'pending'),
      job('cancel', 'j'),
      becomes('j', 'null'),
      ['query-jobs'],
    ],
  },
  {
    name: 'a mirror that waits to be finalized',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({ 'auto-finalize': false }),
      becomes('m', 'ready'),
      job('finalize', 'm'),
      job('complete', 'm'),
      becomes('m', 'pending'),
      ['block-job-finalize', { id: 'm' }],
      becomes('m', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'what can be done to a job that is ready',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({}),
      becomes('m', 'ready'),
      job('dismiss', 'm'),
      job('finalize', 'm'),
      job('resume', 'm'),
      job('pause', 'm'),
      job('pause', 'm'),
      becomes('m', 'standby'),
      block('cancel', 'm'),
      block('resume', 'm'),
      block('resume', 'm'),
      block('set-speed', 'm', { speed: -1 }),
      block('set-speed', 'm', { speed: 1_000_000 }),
      block('set-speed', 'm', { speed: 0 }),
      ['blockdev-del', { 'node-name': 'b' }, 'own words'],
      job('cancel', 'm'),
      becomes('m', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'a mirror is completed while it stands by, and goes on',
    steps: [
      nullNode('a'),
      raw('b'),
      mirror({}),
      becomes('m', 'ready'),
      job('pause', 'm'),
      becomes('m', 'standby'),
      job('complete', 'm'),
      job('resume', 'm'),
      becomes('m', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'jobs that are not there',
    steps: [
      ...['pause', 'resume', 'cancel', 'complete', 'finalize', 'dismiss'].map((verb) =>
        job(verb, 'nobody'),
      ),
      ...['pause', 'resume', 'cancel', 'complete'].map((verb) => block(verb, 'nobody')),
      ['block-job-finalize', { id: 'nobody' }],
      ['block-job-dismiss', { id: 'nobody' }],
      ['query-jobs'],
      ['query-block-jobs'],
    ],
  },
  {
    name: 'a chain is committed',
    steps: [
      qcow2('base'),
      qcow2('top', { backing: 'base' }),
      server,
      ['block-export-add', { type: 'nbd', id: 'e', 'node-name': 'top', writable: true }],
      ['block-commit', { 'job-id': 'c', device: 'top' }],
      becomes('c', 'ready'),
      job('complete', 'c'),
      becomes('c', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'commits that cannot be',
    steps: [
      qcow2('base'),
      ['block-commit', { 'job-id': 'c', device: 'base' }],
      ['block-commit', { 'job-id': 'c', device: 'nobody' }],
      ['block-commit', { 'job-id': 'c', device: 'base', 'base-node': 'nobody' }],
      ['block-commit', { 'job-id': 'c', device: 'base', 'top-node': 'nobody' }],
      ['query-jobs'],
    ],
  },
  {
    name: 'a chain is streamed',
    steps: [
      qcow2('base'),
      qcow2('top', { backing: 'base' }),
      ['block-stream', { 'job-id': 's', device: 'top' }],
      becomes('s', 'null'),
    ],
    events: 'as written',
  },
  {
    name: 'streams that cannot be',
    steps: [
      qcow2('base'),
      ['block-stream', { 'job-id': 's', device: 'nobody' }],
      ['block-stream', { 'job-id': 's', device: 'base', 'base-node': 'nobody' }],
      ['block-stream', { 'job-id': 's', device: 'base', bottom: 'nobody' }],
      ['query-jobs'],
    ],
  },
  {
    name: 'a snapshot is taken',
    steps: [
      qcow2('base'),
      qcow2('top', { backing: null }),
      ['blockdev-snapshot', { node: 'base', overlay: 'top' }],
      ['blockdev-del', { 'node-name': 'base' }],
      ['blockdev-del', { 'node-name': 'top' }],
      ['blockdev-del', { 'node-name': 'base' }],
    ],
  },
  {
    name: 'snapshots that cannot be',
    steps: [
      qcow2('base'),
      raw('disk'),
      ['blockdev-snapshot', { node: 'base', overlay: 'nobody' }],
      ['blockdev-snapshot', { node: 'nobody', overlay: 'disk' }],
      ['blockdev-snapshot', { node: 'base', overlay: 'disk' }],
    ],
  },
  {
    name: 'files are made',
    steps: [
      ...created({ driver: 'file', filename: 'FOLDER/new.raw', size: MIB }),
      ...created({
        driver: 'file',
        filename: 'FOLDER/new.raw',
        size: 65536,
        preallocation: 'full',
      }),
      ['blockdev-add', { driver: 'file', 'node-name': 'n', filename: 'FOLDER/new.raw' }],
      ['query-named-block-nodes', { flat: true }],
      ...created({
        ...{ driver: 'file', filename: 'FOLDER/x.raw', size: 65536, preallocation: 'metadata' },
      }),
      ...created({ driver: 'file', filename: '/nowhere/f', size: MIB }, 'own words'),
    ],
  },
  {
    name: 'files that cannot be made',
    steps: [
      ['blockdev-create', { 'job-id': 'c' }],
      ['blockdev-create', { options: newFile }],
      create(newFile, '9'),
      create({ driver: 'nope' }),
      create({ driver: 'null-co' }),
      create({ driver: 'raw', size: MIB }),
      create({ driver: 'file', filename: 'FOLDER/x' }),
      create({ driver: 'file', size: MIB }),
      create({ driver: 'file', filename: 'FOLDER/x', size: '5' }),
      create({ driver: 'file', filename: 'FOLDER/x', size: 5, preallocation: 'x' }),
      create({ driver: 'file', filename: 'FOLDER/x', size: 5, colour: 1 }),
      create({ driver: 'qcow2', size: MIB }),
      create({ driver: 'qcow2', file: 'f' }),
      create(image({ version: 'v4' })),
      create(image({ 'cluster-size': '4k' })),
      ['query-jobs'],
    ],
  },
  {
    name: 'images are made',
    steps: [
      ...created(newFile),
      fileNode,
      ...created(image({})),
      ...created(image({ 'cluster-size': 4096, 'refcount-bits': 1, 'lazy-refcounts': true })),
      ...created(image({ 'backing-file': 'base.qcow2', 'backing-fmt': 'qcow2' })),
      ...created(image({ 'extended-l2': true, 'compression-type': 'zstd' })),
      ['blockdev-del', { 'node-name': 'f' }],
      ...madeImage,
      fileNode,
      ...created(image({ preallocation: 'metadata', version: 'v2' })),
      ['blockdev-del', { 'node-name': 'f' }],
      ...madeImage,
      fileNode,
      ['blockdev-add', { driver: 'qcow2', 'node-name': 'q', file: 'f' }],
      ...created(image({}), 'own words'),
    ],
  },
  {
    name: 'an image names a backing file without its format',
    steps: [
      ...created(newFile),
      fileNode,
      ...created(image({ 'backing-file': 'b' }), 'needs a format'),
    ],
    events: 'needs a format',
  },
  {
    name: 'images that cannot be made',
    steps: [
      ...created(newFile),
      fileNode,
      ...created(image({ file: 'nobody' })),
      ...created(image({ size: MIB + 1 })),
      ...created(image({ 'cluster-size': 1000 })),
      ...created(image({ 'cluster-size': 256 })),
      ...created(image({ 'cluster-size': 4 * MIB })),
      ...created(image({ 'cluster-size': 4096, 'extended-l2': true })),
      ...created(image({ 'backing-file': 'b', preallocation: 'full' })),
      ...created(image({ 'backing-fmt': 'raw' })),
      ...created(image({ version: 'v2', 'lazy-refcounts': true })),
      ...created(image({ 'refcount-bits': 3 })),
      ...created(image({ 'refcount-bits': 128 })),
      ...created(image({ version: 'v2', 'refcount-bits': 1 })),
      ...created(image({ version: 'v2', 'compression-type': 'zstd' })),
      ...created(image({ 'data-file-raw': true })),
      ...created(image({ file: { driver: 'file', filename: '/nowhere/f' } }), 'own words'),
    ],
  },
  {
    name: 'a create that is kept refuses what jobs that have ended refuse',
    steps: [
      create({ driver: 'file', filename: 'FOLDER/new.raw', size: 512 }),
      becomes('c', 'concluded'),
      create({ driver: 'file', filename: 'FOLDER/new.raw', size: 512 }),
      job('pause', 'c'),
      job('cancel', 'c'),
      job('complete', 'c'),
      block('pause', 'c'),
      ['query-block-jobs'],
      job('dismiss', 'c'),
    ],
  },
  {
    name: 'throttle groups come and go',
    steps: [
      group('g'),
      group('g'),
      group('9g'),
      ['object-add', { 'qom-type': 'nope', id: 'h' }],
      ['object-add', { 'qom-type': 'throttle-group' }],
      ['object-add', { id: 'h' }],
      ['object-add', { 'qom-type': 'throttle-group', id: 'h', colour: 1 }],
      ['object-add', { 'qom-type': 'throttle-group', id: 'h', 'x-iops-total': 7 }],
      ['qom-get', { path: '/objects/h', property: 'x-iops-total' }],
      ['object-del', { id: 'h' }],
      ['object-del', { id: 'h' }],
      ['qom-get', limits],
      ['object-del', { id: 'g' }],
      ['qom-get', limits],
    ],
  },
  {
    name: 'limits that make no sense',
    steps: [
      group('g', { 'iops-total': 100, 'iops-read': 10 }),
      group('g', { 'bps-total': 100, 'bps-write': 10 }),
      group('g', { 'iops-total': 100, 'iops-total-max': 10 }),
      group('g', { 'iops-total-max': 10 }),
      group('g', { 'iops-total': -1 }),
      group('g', { 'bps-total': 2e15 }),
      group('g', { 'iops-total': 1, 'iops-total-max-length': 0 }),
      group('g', { 'iops-total': 1, 'iops-total-max-length': 5 }),
      group('g', { 'iops-size': 4096 }),
      group('g', { nope: 1 }),
      group('g', { 'iops-total': '5' }),
      group('g', { 'bps-total': 1e15, 'bps-total-max': 1e15, 'bps-total-max-length': 9 }),
      ['qom-get', limits],
    ],
  },
  {
    name: 'limits are changed',
    steps: [
      group('g', { 'iops-total': 100, 'bps-read': 4096 }),
      ['qom-get', limits],
      ['qom-get', { ...limits, path: 'g' }],
      ['qom-get', { ...limits, path: 'objects/g' }],
      ['qom-get', { ...limits, property: 'nope' }],
      ['qom-get', { ...limits, property: 'type' }],
      setLimits({ 'iops-total': 5 }),
      ['qom-get', limits],
      setLimits({ 'iops-total': 5, 'iops-read': 4 }),
      setLimits(5),
      setLimits({ 'iops-total': '5' }),
      setLimits({ nope: 5 }),
      setLimits({}),
      setLimits({ 'bps-read': 0, 'bps-total': 7, 'bps-total-max': 9, 'bps-total-max-length': 2 }),
      ['qom-get', limits],
      ['qom-set', { ...limits, property: 'nope', value: 1 }],
      ['qom-set', { ...limits, property: 'type', value: 'x' }],
      ['qom-set', { ...limits, path: '/objects/zz', value: {} }],
      ['qom-set', limits],
    ],
  },
  {
    name: 'nodes are throttled together',
    steps: [
      nullNode('a'),
      ['blockdev-add', { driver: 'throttle', 'node-name': 't', file: 'a', 'throttle-group': 'g' }],
      group('g'),
      ['blockdev-add', { driver: 'throttle', 'node-name': 't', file: 'a' }],
      ['blockdev-add', { driver: 'throttle', 'node-name': 't', file: 'a', 'throttle-group': 'g' }],
      ['object-del', { id: 'g' }],
      ['blockdev-del', { 'node-name': 't' }],
      ['object-del', { id: 'g' }],
    ],
  },
  {
    name: 'what TLS needs',
    steps: [
      ['object-add', { 'qom-type': 'tls-creds-psk', id: 'k', dir: 'FOLDER', endpoint: 'server' }],
      ['object-add', { 'qom-type': 'tls-creds-psk', id: 'k', dir: 'FOLDER', endpoint: 'server' }],
      ['object-add', { 'qom-type': 'tls-creds-psk', id: 'l', dir: 'FOLDER', endpoint: 'x' }],
      ['object-add', { 'qom-type': 'tls-creds-x509', id: 'l', endpoint: 'server' }],
      [
        'object-add',
        { 'qom-type': 'tls-creds-x509', id: 'l', dir: '/nowhere', endpoint: 'server' },
        'own words',
      ],
      ['object-add', { 'qom-type': 'tls-creds-psk', id: 'l', dir: 'FOLDER', username: 'u' }],
      group('g'),
      [
        'nbd-server-start',
        { addr: { type: 'unix', data: { path: 'FOLDER/nbd' } }, 'tls-creds': 'z' },
      ],
      [
        'nbd-server-start',
        { addr: { type: 'unix', data: { path: 'FOLDER/nbd' } }, 'tls-creds': 'g' },
      ],
      [
        'nbd-server-start',
        { addr: { type: 'unix', data: { path: 'FOLDER/nbd' } }, 'tls-creds': 'l' },
      ],
      [
        'nbd-server-start',
        { addr: { type: 'unix', data: { path: 'FOLDER/nbd' } }, 'tls-creds': 'k' },
      ],
      ['object-del', { id: 'k' }],
      ['object-del', { id: 'k' }],
    ],
  },
  {
    name: 'nodes are opened otherwise',
    steps: [
      qcow2('disk'),
      ['blockdev-add', { driver: 'file', 'node-name': 'f', filename: 'FOLDER/b.raw' }],
      reopen({ driver: 'file', 'node-name': 'f', filename: 'FOLDER/b.raw', 'read-only': true }),
      ['query-named-block-nodes', { flat: true }],
      reopen({ driver: 'file', 'node-name': 'f', filename: 'FOLDER/b.raw' }),
      ['query-named-block-nodes', { flat: true }],
      reopen({ driver: 'file', 'node-name': 'f', filename: 'FOLDER/other.raw' }),
      reopen({ driver: 'file', 'node-name': 'f' }),
      reopen({ driver: 'file', 'node-name': 'nobody', filename: 'FOLDER/b.raw' }),
      reopen({ driver: 'file', filename: 'FOLDER/b.raw' }),
      ['blockdev-reopen'],
      ['blockdev-reopen', { options: 5 }],
      reopen(
        { driver: 'file', 'node-name': 'f', filename: 'FOLDER/b.raw', 'read-only': true },
        { driver: 'file', 'node-name': 'nobody', filename: 'FOLDER/b.raw' },
      ),
      ['query-named-block-nodes', { flat: true }],
    ],
  },
  {
    name: 'a backing file is named otherwise',
    steps: [
      qcow2('base', { 'read-only': true }),
      qcow2('top', { backing: 'base' }),
      ['change-backing-file', { device: 'top', 'image-node-name': 'top', 'backing-file': 'x' }],
      ['change-backing-file', { device: 'top', 'image-node-name': 'base', 'backing-file': 'x' }],
      ['change-backing-file', { device: 'base', 'image-node-name': 'base', 'backing-file': 'x' }],
      ['change-backing-file', { device: 'no', 'image-node-name': 'top', 'backing-file': 'x' }],
      ['change-backing-file', { device: 'top', 'image-node-name': 'no', 'backing-file': 'x' }],
      ['change-backing-file', { device: 'top', 'image-node-name': 'top' }],
      reopen({
        driver: 'qcow2',
        'node-name': 'top',
        file: { driver: 'file', filename: 'FOLDER/top.qcow2' },
      }),
    ],
  },
  { name: 'a command that nobody has', steps: [['nope'], ['nope', { a: 1 }], ['', {}]] },
];
