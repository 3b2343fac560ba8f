/** Every path that every command takes: what is right there, and how the command is called. */
import { dirname } from 'node:path';
import type { Material } from './materials.js';

export interface Role {
  readonly name: string;
  /** What it stands for in the help: a command with an argument, or with an option. */
  readonly covers: string;
  /** What a user would have at the path. */
  readonly good: Material | 'folder' | 'nothing';
  /** Other files, in the folder of the path. */
  readonly near?: readonly Material[];
  /** Other files, in the folder of everything else. */
  readonly files?: readonly Material[];
  /** `over.qcow2` in the other folder has this backing file: the path itself, or `base.raw` in it. */
  readonly named?: 'path' | 'inside';
  /** Ends with what it prints first, by an interruption. */
  readonly serves?: boolean;
  /** `work` is the folder of the other files. */
  args(path: string, work: (name: string) => string): readonly string[];
}

const SOURCE = ['source.raw'] as const;

/** Lets an image name the path, whichever folder it is in. */
function follow(path: string): string[] {
  return ['--backing-folder', dirname(path)];
}

const COPY: readonly Role[] = [
  {
    name: 'copy SOURCE',
    covers: 'copy <source>',
    good: 'source.raw',
    args: (path, work) => ['copy', path, work('out.raw')],
  },
  {
    name: 'copy SOURCE of qcow2',
    covers: 'copy <source>',
    good: 'disk.qcow2',
    args: (path, work) => ['copy', '-f', 'qcow2', path, work('out.raw')],
  },
  {
    name: 'copy TARGET',
    covers: 'copy [target]',
    good: 'old.raw',
    files: SOURCE,
    args: (path, work) => ['copy', work('source.raw'), path],
  },
  {
    name: 'copy TARGET that is not there',
    covers: 'copy [target]',
    good: 'nothing',
    files: SOURCE,
    args: (path, work) => ['copy', work('source.raw'), path],
  },
  {
    name: 'copy TARGET of qcow2',
    covers: 'copy [target]',
    good: 'old.raw',
    files: SOURCE,
    args: (path, work) => ['copy', '-O', 'qcow2', work('source.raw'), path],
  },
  {
    name: 'copy an increment to TARGET',
    covers: 'copy [target]',
    good: 'old.raw',
    files: ['source.raw', 'disk.bitmaps'],
    args: (path, work) => [
      'copy',
      '--bitmap',
      `allocated=${work('disk.bitmaps')}`,
      work('source.raw'),
      path,
    ],
  },
  {
    name: 'copy --resume FILE',
    covers: 'copy --resume <file>',
    good: 'nothing',
    files: SOURCE,
    args: (path, work) => ['copy', '--resume', path, work('source.raw'), work('out.raw')],
  },
  {
    name: 'copy --resume FILE that holds something else',
    covers: 'copy --resume <file>',
    good: 'text',
    files: SOURCE,
    args: (path, work) => ['copy', '--resume', path, work('source.raw'), work('out.raw')],
  },
  {
    name: 'copy --digest-file FILE',
    covers: 'copy --digest-file <file>',
    good: 'disk.digest',
    files: SOURCE,
    args: (path, work) => ['copy', '--digest-file', path, work('source.raw'), work('out.raw')],
  },
  {
    name: 'copy --digest-file FILE that is not there',
    covers: 'copy --digest-file <file>',
    good: 'nothing',
    files: SOURCE,
    args: (path, work) => ['copy', '--digest-file', path, work('source.raw'), work('out.raw')],
  },
  {
    name: 'copy --bitmap NAME=FILE',
    covers: 'copy --bitmap <name=file>',
    good: 'disk.bitmaps',
    files: ['source.raw', 'old.raw'],
    args: (path, work) => [
      ...['copy', '--bitmap', `allocated=${path}`],
      ...[work('source.raw'), work('old.raw')],
    ],
  },
  {
    name: 'copy -B FILE',
    covers: 'copy --backing <file>',
    good: 'same.raw',
    files: ['overlay.qcow2', 'base.raw'],
    args: (path, work) => [
      ...['copy', '--mode', 'top', '-B', path, '-F', 'raw', '-O', 'qcow2'],
      ...[work('overlay.qcow2'), work('out.qcow2')],
    ],
  },
  {
    name: 'copy --rate-file FILE',
    covers: 'copy --rate-file <file>',
    good: 'rate',
    files: SOURCE,
    args: (path, work) => ['copy', '--rate-file', path, work('source.raw'), work('out.raw')],
  },
  {
    name: 'copy -o data_file=FILE',
    covers: 'copy --options <list>',
    good: 'old.raw',
    files: SOURCE,
    args: (path, work) => [
      ...['copy', '-O', 'qcow2', '-o', `data_file=${path}`],
      ...[work('source.raw'), work('out.qcow2')],
    ],
  },
  {
    name: 'copy -o data_file=FILE that is not there',
    covers: 'copy --options <list>',
    good: 'nothing',
    files: SOURCE,
    args: (path, work) => [
      ...['copy', '-O', 'qcow2', '-o', `data_file=${path}`],
      ...[work('source.raw'), work('out.qcow2')],
    ],
  },
];

const CREATE: readonly Role[] = [
  {
    name: 'create IMAGE',
    covers: 'create <image>',
    good: 'old.raw',
    args: (path) => ['create', '-f', 'raw', path, '1M'],
  },
  {
    name: 'create IMAGE that is not there',
    covers: 'create <image>',
    good: 'nothing',
    args: (path) => ['create', '-f', 'raw', path, '1M'],
  },
  {
    name: 'create IMAGE of qcow2',
    covers: 'create <image>',
    good: 'old.raw',
    args: (path) => ['create', '-f', 'qcow2', path, '1M'],
  },
  {
    name: 'check IMAGE',
    covers: 'check <image>',
    good: 'disk.qcow2',
    args: (path) => ['check', '-f', 'qcow2', path],
  },
  {
    name: 'check --repair IMAGE',
    covers: 'check <image>',
    good: 'disk.qcow2',
    args: (path) => ['check', '--repair', 'all', '-f', 'qcow2', path],
  },
  {
    name: 'resize IMAGE',
    covers: 'resize <image>',
    good: 'disk.qcow2',
    args: (path) => ['resize', '-f', 'qcow2', path, '+1M'],
  },
  {
    name: 'resize --shrink IMAGE of raw',
    covers: 'resize <image>',
    good: 'source.raw',
    args: (path) => ['resize', '--shrink', '-f', 'raw', path, '-64K'],
  },
  {
    name: 'snapshot -c IMAGE',
    covers: 'snapshot <image>',
    good: 'disk.qcow2',
    args: (path) => ['snapshot', '-c', 'new', '-f', 'qcow2', path],
  },
  {
    name: 'amend IMAGE',
    covers: 'amend <image>',
    good: 'disk.qcow2',
    args: (path) => ['amend', '-o', 'lazy_refcounts=on', '-f', 'qcow2', path],
  },
  {
    name: 'create -b FILE',
    covers: 'create --backing <file>',
    good: 'base.raw',
    args: (path, work) => ['create', '-b', path, '-F', 'raw', work('out.qcow2')],
  },
  {
    name: 'create -o data_file=FILE',
    covers: 'create --options <list>',
    good: 'old.raw',
    args: (path, work) => ['create', '-o', `data_file=${path}`, work('out.qcow2'), '1M'],
  },
];

/** Commands that only look at one device: with what lies there, and with what an image names. */
const LOOKS: readonly Role[] = [
  {
    name: 'map SOURCE',
    covers: 'map <source>',
    good: 'source.raw',
    args: (path) => ['map', '--no-picture', path],
  },
  {
    name: 'map SOURCE of qcow2',
    covers: 'map <source>',
    good: 'disk.qcow2',
    args: (path) => ['map', '--no-picture', '-f', 'qcow2', path],
  },
  {
    name: 'map an image over FILE',
    covers: 'map <source>',
    good: 'base.raw',
    named: 'path',
    args: (path, work) => ['map', '--no-picture', ...follow(path), work('over.qcow2')],
  },
  {
    name: 'info SOURCE',
    covers: 'info <source>',
    good: 'source.raw',
    args: (path) => ['info', path],
  },
  {
    name: 'info SOURCE of qcow2',
    covers: 'info <source>',
    good: 'disk.qcow2',
    args: (path) => ['info', '-f', 'qcow2', path],
  },
  {
    name: 'info of an image over FILE',
    covers: 'info <source>',
    good: 'base.raw',
    named: 'path',
    args: (path, work) => ['info', ...follow(path), work('over.qcow2')],
  },
  {
    name: 'measure SOURCE of qcow2',
    covers: 'measure [source]',
    good: 'disk.qcow2',
    args: (path) => ['measure', '-O', 'qcow2', '-f', 'qcow2', path],
  },
  {
    name: 'snapshot IMAGE',
    covers: 'snapshot <image>',
    good: 'disk.qcow2',
    args: (path) => ['snapshot', '-f', 'qcow2', path],
  },
  {
    name: 'compare A',
    covers: 'compare <a>',
    good: 'source.raw',
    files: SOURCE,
    args: (path, work) => ['compare', path, work('source.raw')],
  },
  {
    name: 'compare B',
    covers: 'compare <b>',
    good: 'source.raw',
    files: SOURCE,
    args: (path, work) => ['compare', work('source.raw'), path],
  },
  {
    name: 'digest SOURCE',
    covers: 'digest <source>',
    good: 'source.raw',
    args: (path) => ['digest', path],
  },
  {
    name: 'digest --check FILE',
    covers: 'digest --check <file>',
    good: 'disk.digest',
    files: SOURCE,
    args: (path, work) => ['digest', '--check', path, work('source.raw')],
  },
  {
    name: 'populate SOURCE',
    covers: 'populate <source...>',
    good: 'source.raw',
    args: (path, work) => ['populate', path, '--output', work('out.bitmaps')],
  },
];

const SERVE: readonly Role[] = [
  {
    name: 'serve SOURCE',
    covers: 'serve <source>',
    good: 'source.raw',
    serves: true,
    args: (path, work) => ['serve', path, '--socket', work('s')],
  },
  {
    name: 'serve --writable SOURCE',
    covers: 'serve <source>',
    good: 'source.raw',
    serves: true,
    args: (path, work) => ['serve', '--writable', path, '--socket', work('s')],
  },
  {
    name: 'serve --writable SOURCE of qcow2',
    covers: 'serve <source>',
    good: 'disk.qcow2',
    serves: true,
    args: (path, work) => ['serve', '--writable', '-f', 'qcow2', path, '--socket', work('s')],
  },
  {
    name: 'serve --bitmap NAME=FILE',
    covers: 'serve --bitmap <name[=file]>',
    good: 'disk.bitmaps',
    files: SOURCE,
    serves: true,
    args: (path, work) => [
      ...['serve', '--bitmap', `allocated=${path}`, work('source.raw')],
      ...['--socket', work('s')],
    ],
  },
  {
    name: 'serve --socket PATH',
    covers: 'serve --socket <path>',
    good: 'nothing',
    files: SOURCE,
    serves: true,
    args: (path, work) => ['serve', work('source.raw'), '--socket', path],
  },
  {
    name: 'serve --socket PATH that something else has',
    covers: 'serve --socket <path>',
    good: 'text',
    files: SOURCE,
    serves: true,
    args: (path, work) => ['serve', work('source.raw'), '--socket', path],
  },
  tls('--tls-cert', 'cert.pem', (path, work) => ['--tls-cert', path, '--tls-key', work('key.pem')]),
  tls('--tls-key', 'key.pem', (path, work) => ['--tls-cert', work('cert.pem'), '--tls-key', path]),
  tls('--tls-ca', 'cert.pem', (path, work) => [
    ...['--tls-cert', work('cert.pem'), '--tls-key', work('key.pem')],
    ...['--tls-ca', path],
  ]),
  tls('--tls-psk', 'keys.psk', (path) => ['--tls-psk', path]),
];

function tls(option: string, good: Material, flags: Role['args']): Role {
  return {
    name: `serve ${option} FILE`,
    covers: `serve ${option} <file>`,
    good,
    files: ['source.raw', 'cert.pem', 'key.pem'],
    serves: true,
    args: (path, work) => {
      const address = ['--bind', '127.0.0.1:0'];
      return ['serve', work('source.raw'), ...address, ...flags(path, work)];
    },
  };
}

/** Commands on the bitmaps of an image: `lacuna bitmap ACTION IMAGE ...`. */
const BITMAPS: readonly Role[] = [
  ...(
    [
      ['list', []],
      ['dump', ['b0']],
      ['add', ['new']],
      ['remove', ['b0']],
      ['clear', ['b0']],
      ['enable', ['b0']],
      ['disable', ['b0']],
      ['merge', ['b1', 'b0']],
    ] as const
  ).map(([action, names]): Role => {
    return {
      name: `bitmap ${action} IMAGE`,
      covers: `bitmap ${action} <image>`,
      good: 'disk.qcow2',
      args: (path) => ['bitmap', action, '-f', 'qcow2', path, ...names],
    };
  }),
  {
    name: 'bitmap list of a file of bitmaps',
    covers: 'bitmap list <image>',
    good: 'disk.bitmaps',
    args: (path) => ['bitmap', 'list', '-f', 'bitmaps', path],
  },
  {
    name: 'bitmap merge -b IMAGE',
    covers: 'bitmap merge --source-file <image>',
    good: 'disk.qcow2',
    files: ['overlay.qcow2', 'base.raw'],
    args: (path, work) => [
      ...['bitmap', 'merge', '-b', path, '-F', 'qcow2'],
      ...[work('overlay.qcow2'), 'b0', 'b1'],
    ],
  },
  {
    name: 'bitmap export IMAGE',
    covers: 'bitmap export <image>',
    good: 'disk.qcow2',
    args: (path, work) => ['bitmap', 'export', '-f', 'qcow2', path, 'b0', work('out.qcow2')],
  },
  {
    name: 'bitmap export TARGET',
    covers: 'bitmap export <target>',
    good: 'nothing',
    files: ['disk.qcow2'],
    args: (path, work) => ['bitmap', 'export', work('disk.qcow2'), 'b0', path],
  },
  {
    name: 'bitmap export TARGET that is there',
    covers: 'bitmap export <target>',
    good: 'overlay.qcow2',
    files: ['disk.qcow2'],
    args: (path, work) => ['bitmap', 'export', work('disk.qcow2'), 'b0', path],
  },
  {
    name: 'populate --output FILE',
    covers: 'populate --output <file>',
    good: 'disk.bitmaps',
    files: ['old.raw'],
    args: (path, work) => ['populate', work('old.raw'), '--output', path],
  },
  {
    name: 'populate --output FILE that is not there',
    covers: 'populate --output <file>',
    good: 'nothing',
    files: ['old.raw'],
    args: (path, work) => ['populate', work('old.raw'), '--output', path],
  },
  {
    name: 'mirror --qmp SOCKET',
    covers: 'mirror --qmp <socket>',
    good: 'nothing',
    files: ['old.raw'],
    args: (path, work) => {
      const scratch = dirname(work('x'));
      return ['mirror', '--qmp', path, '--scratch', scratch, '--full', work('old.raw')];
    },
  },
  {
    name: 'populate --qmp SOCKET',
    covers: 'populate --qmp <socket>',
    good: 'nothing',
    args: (path, work) => ['populate', '--qmp', path, '--scratch', dirname(work('x')), 'vda'],
  },
];

const CHAINS: readonly Role[] = [
  {
    name: 'commit TOP',
    covers: 'commit <top>',
    good: 'overlay.qcow2',
    near: ['base.raw'],
    args: (path) => ['commit', '-f', 'qcow2', path],
  },
  {
    name: 'commit onto FILE',
    covers: 'commit <top>',
    good: 'base.raw',
    named: 'path',
    args: (path, work) => ['commit', ...follow(path), work('over.qcow2')],
  },
  {
    name: 'rebase IMAGE',
    covers: 'rebase <image>',
    good: 'overlay.qcow2',
    near: ['base.raw'],
    args: (path) => ['rebase', '-f', 'qcow2', path, '-b', ''],
  },
  {
    name: 'rebase -b FILE',
    covers: 'rebase --backing <file>',
    good: 'same.raw',
    files: ['overlay.qcow2', 'base.raw'],
    args: (path, work) => [
      ...['rebase', work('overlay.qcow2'), '-b', path, '-F', 'raw'],
      ...follow(path),
    ],
  },
  {
    name: 'rebase -u -b FILE',
    covers: 'rebase --backing <file>',
    good: 'same.raw',
    files: ['overlay.qcow2', 'base.raw'],
    args: (path, work) => ['rebase', work('overlay.qcow2'), '-u', '-b', path, '-F', 'raw'],
  },
];

const FOLDERS: readonly Role[] = [
  ...(
    [
      ['copy', (work) => [work('out.raw')]],
      ['map', () => ['--no-picture']],
      ['info', () => []],
      ['compare', (work) => [work('source.raw')]],
      ['digest', () => []],
      ['populate', (work) => ['--output', work('out.bitmaps')]],
      ['serve', (work) => ['--socket', work('s')]],
      ['commit', () => []],
      ['rebase', () => ['-b', '']],
    ] as readonly [string, (work: (name: string) => string) => string[]][]
  ).map(([command, more]): Role => {
    return {
      name: `${command} --backing-folder FOLDER`,
      covers: `${command} --backing-folder <folder>`,
      good: 'folder',
      files: SOURCE,
      named: 'inside',
      serves: command === 'serve',
      args: (path, work) => [
        ...[command, '--backing-folder', path, work('over.qcow2')],
        ...more(work),
      ],
    };
  }),
  {
    name: 'create --backing-folder FOLDER',
    covers: 'create --backing-folder <folder>',
    good: 'folder',
    files: SOURCE,
    named: 'inside',
    args: (path, work) => [
      ...['create', '--backing-folder', path, '-b', work('over.qcow2'), '-F', 'qcow2'],
      work('out.qcow2'),
    ],
  },
  {
    name: 'demo --folder PATH',
    covers: 'demo --folder <path>',
    good: 'folder',
    args: (path) => ['demo', '--size', '64M', '--folder', path],
  },
];

/** Every command opens a repository in the same way; test/integration/repository has what is made in one. */
const REPOSITORIES: readonly Role[] = [
  {
    name: 'list REPOSITORY that is a folder of something else',
    covers: 'list <repository>',
    good: 'folder',
    args: (path) => ['list', path],
  },
];

export const ROLES: readonly Role[] = [
  ...COPY,
  ...CREATE,
  ...LOOKS,
  ...SERVE,
  ...BITMAPS,
  ...CHAINS,
  ...FOLDERS,
  ...REPOSITORIES,
];

/** Arguments and values of options that are no paths, as the help calls them. */
export const NOT_PATHS: readonly string[] = [
  ...['<format>', '<mode>', '<n>', '<size>', '<policy>', '<ms>', '<seconds>', '<cells>'],
  ...['<text>', '<address:port>', '<bitmap>', '<bitmaps...>', '<name>'],
  ...['<disk=target>', '<address>'],
  ...['<uri>', '<disk:bitmap>', '<point>', '[point]', '<other>', '<share>', '[type]', '<domain>'],
  ...['<command>', '<shell>', '[size]', '<snapshot>'],
];

/** Names that are paths elsewhere. */
export const NOT_PATHS_HERE: readonly string[] = [
  'bitmap merge <target>',
  'bitmap merge <sources...>',
  // A repository is opened as by "list".
  ...['restore', 'verify', 'prune', 'diff', 'unlock', 'recover'].map(
    (command) => `${command} <repository>`,
  ),
  ...['[source...]', '<repository>', '--backing-folder <folder>'].map((of) => `backup ${of}`),
  'restore <target>',
  // test/integration/repository has what is told of these.
  ...['backup', 'restore'].map((command) => `${command} --configuration <file>`),
  // Followed as by "info".
  ...['measure', 'snapshot'].map((command) => `${command} --backing-folder <folder>`),
  // Files that -o names are not looked at.
  'measure --options <list>',
  'amend --options <list>',
  // Of a running machine: test/integration/qemu has what is told of these.
  ...['--qmp <socket>', '--agent <socket>', '--scratch <folder>'].map((flag) => `backup ${flag}`),
  ...['--qmp <socket>', '--scratch <folder>'].map((flag) => `recover ${flag}`),
  'populate --scratch <folder>',
  ...['<target>', '--state <file>', '--scratch <folder>'].map((of) => `mirror ${of}`),
  ...['[target]', '--qmp <socket>', '--to-qmp <socket>', '--scratch <folder>'].map(
    (of) => `migrate ${of}`,
  ),
  'serve --overlay <folder>',
  // test/integration/daemon has what is told of these.
  ...['qmp <socket>', 'qmp [arguments...]'],
  ...['--allow <folder>', '--blockdev <description>', '--chardev <options>', '--config <file>'].map(
    (flag) => `daemon ${flag}`,
  ),
  ...['--export <options>', '--monitor <options>', '--nbd-server <options>'].map(
    (flag) => `daemon ${flag}`,
  ),
  ...['--pidfile <path>', '--qmp <unix:path>', '--http-token <file>'].map(
    (flag) => `daemon ${flag}`,
  ),
  ...['--object <options>', '--trace <file>'].map((flag) => `daemon ${flag}`),
];
