/** `lacuna copy` in the middle of a pipeline, between programs of other people. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { usePeers } from '../../support/peers.js';
import { runCli } from '../../support/run-cli.js';
import { signalWhen } from '../../support/signal-when.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MIB = 2 ** 20;
const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const folder = temporaryFolder();
const peers = usePeers();
const disk = join(folder, 'disk.raw');
let sha256: string;

beforeAll(() => {
  const fd = openSync(disk, 'w');
  ftruncateSync(fd, 40 * MIB + 512);
  for (const at of [0, 7, 39]) writeSync(fd, pattern(MIB, at), 0, MIB, at * MIB + 77);
  closeSync(fd);
  sha256 = createHash('sha256').update(readFileSync(disk)).digest('hex');
});

/** Runs a pipeline, in which `lacuna` is the built command; fails as any part of it fails. */
function shell(script: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const lacuna = `lacuna() { '${process.execPath}' '${MAIN}' "$@"; }`;
  return new Promise((resolve) => {
    const env = { ...process.env, LC_ALL: 'C' };
    const args = ['-c', `set -o pipefail; ${lacuna}; cd '${folder}'; ${script}`];
    execFile('bash', args, { env }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), stdout, stderr }),
    );
  });
}

describe('lacuna copy SOURCE -', () => {
  test('writes what sha256sum takes for the disk, from a file and from a server', async () => {
    const result = { code: 0, stdout: `${sha256}  -\n`, stderr: '' };
    expect(await shell('lacuna copy disk.raw - | sha256sum')).toEqual(result);
    expect(await shell('lacuna copy disk.raw - > redirected && sha256sum < redirected')).toEqual(
      result,
    );
    const { uri } = await peers.nbdkit(['file', disk]);
    expect(await shell(`lacuna copy '${uri}' - | sha256sum`)).toEqual(result);
  });

  test('says so when its reader goes away', async () => {
    const { code, stdout, stderr } = await shell('lacuna copy disk.raw - | head -c 3 | wc -c');
    expect([code, stdout.trim()]).toEqual([1, '3']);
    expect(stderr).toMatch(/^lacuna: The stream took no more .*EPIPE.*\n$/);
  });

  test('keeps to a rate, and pauses when it is told to by a signal', async () => {
    const { code, stdout } = await shell(
      [
        // Nobody reads on before the copy has paused: it cannot end before the signal.
        'mkfifo slow',
        `'${process.execPath}' '${MAIN}' copy --rate 20M disk.raw - > slow 2> notes & copy=$!`,
        'exec 3< slow; head -c 1 <&3 > all; kill -USR2 $copy',
        'until grep -q paused notes || ! kill -0 $copy; do sleep 0.05; done; kill -USR2 $copy',
        'cat <&3 >> all; wait $copy && sha256sum < all && cat notes',
      ].join('\n'),
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^${sha256}  -\n.*paused; .*\n.*goes on\n$`));
  });

  test('reads a disk that is in use, if it is told to', async () => {
    const { code, stdout } = await shell('lacuna copy --force-share disk.raw - | cmp - disk.raw');
    expect([code, stdout]).toEqual([0, '']);
  });

  test('refuses, as misuse, the flags that a stream cannot follow', async () => {
    const named = [
      'disk.raw - --on-read-error retry',
      '- x --allocated',
      'disk.raw - --retries 2',
      '- x --connections 2',
      '- x --digest-file d',
      'disk.raw - --reconnect 3',
      '- x --backing-folder .',
      'disk.raw - --rate-file r',
    ];
    for (const args of named) {
      const { code, stderr } = await shell(`lacuna copy ${args} < /dev/null`);
      expect([code, stderr], args).toEqual([2, expect.stringContaining(args.split(' ')[2])]);
    }
    for (const args of [
      '- -',
      '--dry-run -',
      'disk.raw - --json',
      'disk.raw - --json --rate 1M --rate-file r',
      'disk.raw - --digest',
      '- x --threads 2',
    ]) {
      const { code, stdout } = await shell(`lacuna copy ${args} < /dev/null`);
      expect([code, stdout], args).toEqual([2, '']);
    }
  });
});

test('standard output that takes nothing fails every command in one line', async () => {
  // A target that is there already is not what has no room.
  await shell('lacuna copy disk.raw full.raw');
  for (const args of ['--help', 'map disk.raw', 'copy --json disk.raw full.raw']) {
    const { code, stderr } = await shell(`lacuna ${args} > /dev/full`);
    expect([code, stderr], args).toEqual([
      1,
      expect.stringMatching(
        /^lacuna: Cannot write to standard output: there is no space left.*\(ERR_DEVICE_IO\)\n$/,
      ),
    ]);
  }
});

describe('lacuna copy - TARGET', () => {
  test('makes a sparse file of what gzip unpacks', async () => {
    const { code, stderr } = await shell('gzip -1 < disk.raw | gzip -dc | lacuna copy - piped.raw');
    expect([code, stderr]).toEqual([0, '']);
    expect((await shell('cmp disk.raw piped.raw')).code).toBe(0);
    expect(statSync(join(folder, 'piped.raw')).blocks * 512).toBeLessThan(4 * MIB);
  });

  test('reads from a file, and writes into a server that has other bytes', async () => {
    const { uri } = await peers.nbdkit(['memory', `${40 * MIB + 512}`]);
    const fill = `head -c ${40 * MIB + 512} /dev/zero | tr '\\0' x | lacuna copy - '${uri}'`;
    const script = `${fill} && lacuna copy - '${uri}' < disk.raw && lacuna copy '${uri}' - | cmp - disk.raw`;
    expect(await shell(script)).toMatchObject({ code: 0, stderr: '' });
  });

  test('fails where there is no room, and warns where there is more', async () => {
    const { uri: small } = await peers.nbdkit(['memory', '1M']);
    const { code, stderr } = await shell(`lacuna copy - '${small}' < disk.raw`);
    expect([code, stderr]).toEqual([1, expect.stringContaining('ERR_COPY_MISMATCH')]);
    const { uri: large } = await peers.nbdkit(['memory', '64M']);
    const more = await shell(`lacuna copy --json - '${large}' < disk.raw`);
    expect(more).toMatchObject({ code: 0, stderr: expect.stringContaining('larger') });
    expect(JSON.parse(more.stdout)).toMatchObject({ type: 'report', size: 40 * MIB + 512 });
  });

  test('ends when it is interrupted while nothing comes', async () => {
    const result = runCli(['copy', '-', join(folder, 'waiting.raw')], {
      started: (child) => {
        const hasBegun = () => readdirSync(folder).some((name) => name.startsWith('waiting.raw'));
        void signalWhen(child, 'SIGINT', hasBegun);
      },
    });
    expect(await result).toMatchObject({ code: 130 });
  });
});
