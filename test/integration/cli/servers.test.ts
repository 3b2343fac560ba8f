/** NBD servers of others in brackets, in place of a device: they are there for one command. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { runCli } from '../../support/run-cli.js';
import { workInNewFolders } from '../../support/temporary-folder.js';

const MIB = 2 ** 20;

/** Where sockets are, so that a test sees what is left. */
let sockets: string;
workInNewFolders((folder) => {
  sockets = join(folder, 'tmp');
  mkdirSync(sockets);
});

const lacuna = (...args: string[]) => runCli(args, { env: { TMPDIR: sockets } });

function isRunning(pid: number): boolean {
  // A process that has ended and was not waited for is a zombie.
  const stat = existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, 'utf8') : 'Z';
  return !/(^|\) )Z/.test(stat);
}

beforeEach(() => {
  writeFileSync('disk.raw', Buffer.concat([Buffer.alloc(MIB, 'data'), Buffer.alloc(3 * MIB)]));
});

test('a copy from a server into another one is whole, and both have ended with it', async () => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', 'disk.qcow2', '4M']);
  const source = ['[', 'nbdkit', '-P', `${sockets}/../pid`, 'file', 'disk.raw', ']'];
  const target = ['[', 'qemu-nbd', '-f', 'qcow2', 'disk.qcow2', ']'];
  const { code, stdout, stderr } = await lacuna('copy', '--threads', '2', ...source, ...target);
  // A thread may still be greeted by a server when all is moved, and servers tell of clients who leave then.
  const told = stderr
    .split('\n')
    .filter((line) => !/^(nbdkit|qemu-nbd): .*reset by peer$/.test(line));
  expect({ code, told }).toEqual({ code: 0, told: [''] });
  expect(stdout).toContain('moved 1 MiB');
  execFileSync('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', 'disk.raw', 'disk.qcow2']);
  expect(readdirSync(sockets)).toEqual([]);
  expect(isRunning(Number(readFileSync('pid', 'utf8')))).toBe(false);
});

test('every command takes them, and sees what nbdinfo sees', async () => {
  const server = ['[', 'nbdkit', 'pattern', '5M', ']'];
  const { stdout } = await lacuna('info', '--json', ...server);
  const size = execFileSync('nbdinfo', ['--size', ...server], { encoding: 'utf8' });
  expect(JSON.parse(stdout).size).toBe(Number(size));
  // The second is named alike, and is one of its own.
  const same = await lacuna('compare', ...server, ...server);
  expect(same).toMatchObject({ code: 0, stderr: '' });
  expect(same.stdout).toContain('Equal: compared 5 MiB');
});

test('a server that cannot start fails the command in its own words', async () => {
  const args = ['copy', '--json', '[', 'nbdkit', 'file', join(sockets, 'none'), ']', 'null:'];
  const { code, stdout, stderr } = await lacuna(...args);
  expect(code).toBe(1);
  expect(stderr).toContain(`${join(sockets, 'none')}: No such file or directory`);
  const failure = JSON.parse(stdout.trimEnd().split('\n').at(-1)!);
  expect(failure).toMatchObject({ type: 'error', code: 'ERR_SERVER_FAILED' });
  expect(failure.message).toMatch(/^nbdkit ended with exit code 1: nbdkit: .*No such file/);
  const none = await lacuna('info', '[', 'no-such-server', ']');
  expect(none).toMatchObject({ code: 1, stdout: '' });
  expect(none.stderr).toContain('no-such-server was not found: install it');
  expect(readdirSync(sockets)).toEqual([]);
});

test.each([75, 83])(
  'a server is reached where the path of the temporary folder has %i bytes',
  async (length) => {
    // With what is put behind it, that is as long as the name of a Unix socket may be, or longer.
    const folder = join(sockets, `${'x'.repeat(length - sockets.length - 3)}ö`);
    mkdirSync(folder);
    const { code, stderr } = await runCli(['info', '[', 'nbdkit', 'memory', '1M', ']'], {
      env: { TMPDIR: folder },
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(readdirSync(folder)).toEqual([]);
  },
);

test('a server that fails when it is told to end fails the command', async () => {
  writeFileSync(
    'server.sh',
    `trap 'kill $server; echo cannot close the disk >&2; exit 5' TERM
sh -c 'LISTEN_PID=$$; exec nbdkit "$@"' sh "$@" & server=$!
wait`,
  );
  const args = ['info', '[', 'sh', 'server.sh', 'memory', '1M', ']'];
  const { code, stdout, stderr } = await lacuna(...args);
  expect({ code, stdout }).toEqual({ code: 1, stdout: expect.stringContaining('1 MiB') });
  expect(stderr).toContain('sh ended with exit code 5: cannot close the disk');
});

test('a server that leaves a process behind holds up nobody', async () => {
  writeFileSync('server.sh', 'sleep 600 & echo $! > left; exec nbdkit "$@"');
  const { code } = await lacuna('info', '[', 'sh', 'server.sh', 'memory', '1M', ']');
  const left = Number(readFileSync('left', 'utf8'));
  expect({ code, isLeft: isRunning(left) }).toEqual({ code: 0, isLeft: true });
  process.kill(left);
});

test('a server ends when the command is killed, and its socket goes', async () => {
  // The first read never comes back.
  const server = [
    '[',
    'nbdkit',
    '-P',
    'pid',
    '--filter=delay',
    'pattern',
    '1M',
    'delay-read=3600',
    ']',
  ];
  const ended = runCli(['copy', ...server, 'null:'], {
    env: { TMPDIR: sockets },
    started: async (child) => {
      await expect.poll(() => existsSync('pid')).toBe(true);
      child.kill('SIGKILL');
    },
  });
  expect((await ended).code).toBe(null);
  const pid = Number(readFileSync('pid', 'utf8'));
  await expect.poll(() => isRunning(pid)).toBe(false);
  await expect.poll(() => readdirSync(sockets)).toEqual([]);
});

test.each([
  [['copy', '[', 'nbdkit', 'memory', '1G', 'out.raw'], '"]" must end'],
  [['info', '[', ']'], 'names no program'],
  [
    ['digest', 'disk.raw', '--check', '[', 'nbdkit', 'null', ']'],
    'is a device, and not for an option',
  ],
])('brackets that cannot be meant start nothing: %j', async (args, message) => {
  const { code, stderr } = await lacuna(...args);
  expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(message) });
  expect(readdirSync(sockets)).toEqual([]);
});
