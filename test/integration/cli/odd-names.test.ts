/** Names of files that are long, or that are not UTF-8: the file that was meant, or an error, and never another file. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createQcow2, openDevice } from 'lacuna';
import { beforeEach, describe, expect, test } from 'vitest';
import { pattern } from '../../support/fake-device.js';
import { runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const MAIN = fileURLToPath(new URL('../../../dist/cli/main.js', import.meta.url));
const top = temporaryFolder();
let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(join(top, 'test-'));
});

const at = (name: string) => join(folder, name);
const bytesAt = (name: Buffer) => Buffer.concat([Buffer.from(`${folder}/`), name]);

/** Runs the command with arguments of any bytes, which Node cannot hand over: $'\xff' is one of the shell's. */
function shell(line: string, cwd: string | Buffer = folder) {
  const place = cwd.toString('latin1');
  const escaped = [...place].map((c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
  const script = `cd $'${escaped.join('')}' && "${process.execPath}" "${MAIN}" ${line}`;
  return spawnSync('bash', ['-c', script], { encoding: 'utf8' });
}

describe('a name that is not UTF-8 is not taken for the name that Node makes of it:', () => {
  beforeEach(() => {
    fs.writeFileSync(bytesAt(Buffer.from([0xff])), pattern(65536));
    fs.writeFileSync(at('\ufffd'), 'another');
    fs.writeFileSync(at('src'), pattern(65536, 2));
  });

  test.each([
    "info $'\\xff'",
    "copy src $'\\xff'",
    "copy $'\\xff' out",
    "copy --resume $'\\xff' src out",
  ])('refused in %s', (line) => {
    const { status, stderr } = shell(line);
    expect(stderr).toMatch(/^lacuna: argument \d \(.*\) is not valid UTF-8/);
    expect(status).toBe(2);
    expect(fs.readFileSync(at('\ufffd'), 'utf8')).toBe('another');
    expect(fs.readdirSync(folder)).toHaveLength(3);
  });

  test('a file that really has the name that Node makes is used', () => {
    fs.writeFileSync(at('\ufffd'), pattern(65536, 3));
    expect(shell('copy \ufffd out').status).toBe(0);
    expect(fs.readFileSync(at('out')).equals(pattern(65536, 3))).toBe(true);
  });

  test('refused for the folder to run in', () => {
    const odd = bytesAt(Buffer.from([0x64, 0xfe]));
    fs.mkdirSync(odd);
    const { status, stderr } = shell('copy /dev/null out', odd);
    expect([status, stderr]).toEqual([
      2,
      expect.stringContaining('run the command in another one'),
    ]);
    expect(shell('--version', odd).status).toBe(0);
  });

  test('refused for the file behind a link that would be replaced', () => {
    fs.symlinkSync(Buffer.from([0xff]), at('link'));
    const { status, stderr } = shell('copy src link');
    expect([status, stderr]).toEqual([1, expect.stringContaining('not valid UTF-8')]);
    expect(fs.readFileSync(bytesAt(Buffer.from([0xff]))).equals(pattern(65536))).toBe(true);
  });

  test('refused for the backing file and the data file of an image', async () => {
    const backing = { filename: 'abcdefgh', format: 'raw' };
    for (const named of [{ backing }, { dataFile: 'abcdefgh' }]) {
      fs.rmSync(at('abcdefgh'), { force: true });
      await createQcow2(at('image.qcow2'), { size: 65536, ...named });
      const bytes = fs.readFileSync(at('image.qcow2'));
      bytes[bytes.indexOf('abcdefgh') + 7] = 0xff;
      fs.writeFileSync(at('image.qcow2'), bytes);
      fs.writeFileSync(at('abcdefg\ufffd'), pattern(65536));
      await expect(openDevice(at('image.qcow2'))).rejects.toMatchObject({
        code: 'ERR_QCOW2_UNSUPPORTED',
        message: expect.stringContaining('not valid UTF-8'),
      });
    }
  });

  test('refused for half a character in the text of a caller', async () => {
    const description = { driver: 'file', filename: at('\ud800') } as const;
    await expect(openDevice(description)).rejects.toThrow(/whole characters/);
    await expect(openDevice(at('\ud800'))).rejects.toThrow(/whole characters/);
  });
});

describe('a name as long as the system allows', () => {
  test.each([238, 239, 240, 247, 254, 255])(
    'of %i bytes is copied to, with all that lies beside it',
    async (length) => {
      fs.writeFileSync(at('src'), pattern(65536));
      const [target, digest, resume] = ['t', 'd', 'r'].map((letter) => letter.repeat(length));
      const args = ['copy', '-O', 'raw', 'src', target];
      for (const side of [['--digest-file', digest], ['--resume', resume], []]) {
        const result = await runCli([...args, ...side], { cwd: folder });
        expect([result.code, result.stderr]).toEqual([0, '']);
      }
      expect(fs.readFileSync(at(target)).equals(pattern(65536))).toBe(true);
      const bitmaps = ['populate', 'src', '--output', 'b'.repeat(length)];
      for (let i = 0; i < 2; i++) {
        expect(await runCli(bitmaps, { cwd: folder })).toMatchObject({ code: 0 });
      }
      expect(fs.readdirSync(folder).sort()).toEqual(
        ['src', target, digest, 'b'.repeat(length)].sort(),
      );
    },
  );

  test('of many bytes and few characters is cut between characters', async () => {
    fs.writeFileSync(at('src'), pattern(65536));
    const target = `${'ä'.repeat(127)}x`;
    expect(await runCli(['copy', 'src', target], { cwd: folder })).toMatchObject({ code: 0 });
    execFileSync('test', ['-s', at(target)]);
  });
});
