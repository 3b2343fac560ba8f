import type { MirrorJob, PopulateFrom, PopulateOperation } from '../../graph/index.js';
import { type Control, JOB_STATUSES, JOB_TYPES, nodeNamed, refusal } from '../core/index.js';
import {
  about,
  type Command,
  command,
  flag,
  integer,
  list,
  optional,
  size,
  struct,
  text,
  word,
} from '../schema/index.js';
import {
  BACKUP,
  backupOptions,
  COMMIT,
  commitOptions,
  listingOf,
  MIRROR,
  mirrorOptions,
  STREAM,
  streamOptions,
} from './job-options.js';

const jobType = word('JobType', ...JOB_TYPES);
const jobStatus = word('JobStatus', ...JOB_STATUSES);

const jobInfo = struct('JobInfo', {
  id: text,
  type: jobType,
  status: jobStatus,
  'current-progress': size,
  'total-progress': size,
  error: optional(text),
});

const blockJobInfo = struct('BlockJobInfo', {
  type: jobType,
  device: text,
  len: size,
  offset: size,
  busy: flag,
  paused: flag,
  speed: size,
  'io-status': word('BlockDeviceIoStatus', 'ok', 'failed', 'nospace'),
  ready: flag,
  status: jobStatus,
  'auto-finalize': flag,
  'auto-dismiss': flag,
  error: optional(text),
});

const bitmapSource = struct('BlockDirtyBitmapPopulateSource', {
  node: text,
  bitmap: optional(text),
});
const bitmapTarget = struct('BlockDirtyBitmap', { node: text, name: text });
const from = word('BlockDirtyBitmapPopulateFrom', 'allocation', 'data', 'bitmap', 'everything');
const operation = word('BlockDirtyBitmapPopulateMode', 'union', 'overwrite', 'difference');

/** Begins what takes long. */
const begins: readonly Command<Control>[] = [
  command({
    name: 'blockdev-backup',
    about: 'Copies a node as it is now into another one, while it is written.',
    args: BACKUP,
    run: (control: Control, args) => {
      const options = backupOptions(control, args);
      return control.jobs.begin(listingOf(control, 'backup', args), () =>
        control.graph.backup(options),
      );
    },
  }),
  command({
    name: 'blockdev-mirror',
    about:
      'Copies a node into another one, and what is written meanwhile too, until it is completed, and the other one comes into its place, or cancelled.',
    differs: 'With sync incremental or bitmap only what is dirty in a bitmap is copied.',
    args: MIRROR,
    run: (control: Control, args) => {
      const options = mirrorOptions(control, args);
      return control.jobs.begin(listingOf(control, 'mirror', args), () =>
        control.graph.mirror(options),
      );
    },
  }),
  command({
    name: 'block-commit',
    about: 'Puts images of a chain into the one below them, which then comes into their place.',
    args: COMMIT,
    run: (control: Control, args) => {
      const options = commitOptions(control, args);
      return control.jobs.begin(listingOf(control, 'commit', args), () =>
        control.graph.commit(options),
      );
    },
  }),
  command({
    name: 'block-stream',
    about: 'Copies into an image what it shows of the images below it, and takes those out.',
    args: STREAM,
    run: (control: Control, args) => {
      const options = streamOptions(control, args);
      return control.jobs.begin(listingOf(control, 'stream', args), () =>
        control.graph.stream(options),
      );
    },
  }),
  command({
    name: 'block-dirty-bitmap-populate',
    isOurs: true,
    about:
      'Makes bitmaps dirty, or clean, by what is allocated, reads as data, or is dirty in other bitmaps. All of them change at one moment.',
    args: {
      'job-id': text,
      from: about(from, 'what counts; `everything` has no sources'),
      sources: about(optional(list(bitmapSource)), 'nodes, and for `bitmap` their bitmaps'),
      targets: about(list(bitmapTarget), 'the bitmaps'),
      mode: about(optional(operation), 'default union'),
      'auto-finalize': about(optional(flag), 'default true'),
      'auto-dismiss': about(optional(flag), 'default true'),
    },
    run: (control: Control, args) => {
      const { sources = [], targets, mode = 'union' } = args;
      for (const { node } of [...sources, ...targets]) nodeNamed(control.graph, node);
      return control.jobs.begin(listingOf(control, 'populate', args), () =>
        control.graph.populate({
          from: args.from as PopulateFrom,
          sources,
          targets: targets.map(({ node, name }) => ({ node, bitmap: name })),
          operation: mode as PopulateOperation,
          autoFinalize: args['auto-finalize'] ?? true,
        }),
      );
    },
  }),
];

const ID = { id: text } as const;
const DEVICE = { device: about(text, 'the job') } as const;

/** Verbs for all jobs. */
const verbs: readonly Command<Control>[] = [
  command({
    name: 'query-jobs',
    about: 'All jobs.',
    returns: list(jobInfo),
    run: ({ jobs }: Control) => jobs.all.map((job) => job.info()),
  }),
  command({
    name: 'job-pause',
    about: 'Lets a job begin nothing more until it is resumed.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'pause').pause(),
  }),
  command({
    name: 'job-resume',
    about: 'Lets a job go on, also where it waits because of an error.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'resume').resume(),
  }),
  command({
    name: 'job-complete',
    about: 'Lets the target of a job that is ready come into use.',
    differs:
      'Where it cannot come into use, the job goes on, and the event JOB_END_REFUSED tells why.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'complete').complete(),
  }),
  command({
    name: 'job-cancel',
    about: 'Ends a job early, at once.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'cancel').cancel(true),
  }),
  command({
    name: 'job-finalize',
    about: 'Lets a job end that is pending, and with it all jobs of its transaction.',
    differs: 'Where it cannot end, it is pending again, and the event JOB_END_REFUSED tells why.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'finalize').finalize(),
  }),
  command({
    name: 'job-dismiss',
    about: 'Lets a job disappear that has ended.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.job(id), 'dismiss').dismiss(),
  }),
];

/** Verbs for block jobs alone. */
const blockVerbs: readonly Command<Control>[] = [
  command({
    name: 'query-block-jobs',
    about: 'The jobs that copy.',
    returns: list(blockJobInfo),
    run: ({ jobs }: Control) =>
      jobs.all.filter((job) => job.isBlockJob).map((job) => job.blockInfo()),
  }),
  command({
    name: 'block-job-set-speed',
    about: 'Limits how fast a job copies.',
    args: { ...DEVICE, speed: about(integer, 'bytes per second; 0 for no limit') },
    run: ({ jobs }: Control, { device, speed }) =>
      jobs.allowed(jobs.blockJob(device), 'set-speed').setSpeed(speed),
  }),
  command({
    name: 'block-job-pause',
    about: 'As job-pause.',
    args: DEVICE,
    run: ({ jobs }: Control, { device }) => jobs.allowed(jobs.blockJob(device), 'pause').pause(),
  }),
  command({
    name: 'block-job-resume',
    about: 'As job-resume.',
    args: DEVICE,
    run: ({ jobs }: Control, { device }) => jobs.allowed(jobs.blockJob(device), 'resume').resume(),
  }),
  command({
    name: 'block-job-complete',
    about: 'As job-complete.',
    args: DEVICE,
    run: ({ jobs }: Control, { device }) =>
      jobs.allowed(jobs.blockJob(device), 'complete').complete(),
  }),
  command({
    name: 'block-job-cancel',
    about:
      'Ends a job early. A mirror or commit that is ready brings its target up to date first, so that this is a copy of that moment.',
    args: { ...DEVICE, force: about(optional(flag), 'at once; default false') },
    run: ({ jobs }: Control, { device, force = false }) => {
      const job = jobs.blockJob(device);
      if (!force && job.job.state === 'paused') {
        throw refusal(`The block job for device '${device}' is currently paused`);
      }
      jobs.allowed(job, 'cancel').cancel(force);
    },
  }),
  command({
    name: 'block-job-dismiss',
    about: 'As job-dismiss.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.blockJob(id), 'dismiss').dismiss(),
  }),
  command({
    name: 'block-job-finalize',
    about: 'As job-finalize.',
    args: ID,
    run: ({ jobs }: Control, { id }) => jobs.allowed(jobs.blockJob(id), 'finalize').finalize(),
  }),
  command({
    name: 'block-job-change',
    about: 'Switches how a mirror gets what is written.',
    differs: 'It goes in both directions.',
    args: {
      id: text,
      type: word('JobType', ...JOB_TYPES),
      'copy-mode': word('MirrorCopyMode', 'background', 'write-blocking'),
    },
    run: ({ jobs }: Control, { id, type, 'copy-mode': copyMode }) => {
      const job = jobs.allowed(jobs.blockJob(id), 'change');
      if (job.type !== type) {
        throw refusal(`Job '${id}' is '${job.type}' job, not '${type}'`);
      }
      if (type !== 'mirror') throw refusal(`Job type does not support change`);
      (job.job as unknown as MirrorJob).change({ copyMode });
    },
  }),
];

/** Long work. */
export const jobs: readonly Command<Control>[] = [...begins, ...verbs, ...blockVerbs];
