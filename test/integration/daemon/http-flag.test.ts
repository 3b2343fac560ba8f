import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { askHttp } from '../../support/ask-http.js';
import { type CliResult, runCli } from '../../support/run-cli.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();

/** Runs a daemon until `used` has used it; `used` is told the line that says where the page is. */
async function whileRunning(
  args: readonly string[],
  used: (line: string) => Promise<void>,
): Promise<CliResult> {
  let child: ChildProcess | undefined;
  const result = runCli(['daemon', ...args], { started: (process) => (child = process) });
  const line = new Promise<string>((resolve) => {
    let text = '';
    child!.stderr!.on('data', (part: string) => {
      text += part;
      const found = /^The page .*$/m.exec(text);
      if (found !== null) resolve(found[0]);
    });
  });
  const failed = result.then(({ stderr }) => {
    throw new Error(`it ended early: ${stderr}`);
  });
  try {
    await used(await Promise.race([line, failed]));
  } finally {
    child!.kill('SIGTERM');
  }
  return result;
}

describe('lacuna daemon --http', () => {
  test('says where its page is, with the token, and ends with code 0 when it is told to', async () => {
    const { code } = await whileRunning(['--http', '127.0.0.1:0'], async (line) => {
      const [, port, token] = /http:\/\/127\.0\.0\.1:(\d+)\/#token=(\S+)$/.exec(line)!;
      const where = { type: 'inet', host: '127.0.0.1', port: Number(port) } as const;
      const page = await askHttp(where, '/');
      expect(page.text).toContain('<title>Lacuna</title>');
      expect((await askHttp(where, '/metrics')).text).toContain('process_resident_memory_bytes');
      const headers = { authorization: `Bearer ${token}` };
      const body = { action: 'pause' };
      const answer = await askHttp(where, '/jobs/none', { method: 'POST', headers, body });
      expect(answer.status).toBe(404);
    });
    expect(code).toBe(0);
  });

  test('takes the token from a file, and does not tell it then', async () => {
    const token = 'a-token-of-our-own';
    const file = join(folder, 'token');
    await writeFile(file, `${token}\n`);
    const path = join(folder, 'http.sock');
    const args = ['--http', `unix:${path}`, '--http-token', file];
    const { code, stderr } = await whileRunning(args, async (line) => {
      expect(line).toBe(`The page of the daemon is at unix:${path}`);
      const headers = { authorization: `Bearer ${token}` };
      const question = { method: 'POST', headers, body: { action: 'pause' } };
      expect((await askHttp({ type: 'unix', path }, '/jobs/none', question)).status).toBe(404);
    });
    expect(code).toBe(0);
    expect(stderr).not.toContain(token);
  });

  test('says where its page is before it goes on in the background', async () => {
    const pidfile = join(folder, 'pid');
    const args = ['--daemonize', '--pidfile', pidfile, '--http', '127.0.0.1:0'];
    const { code, stderr } = await runCli(['daemon', ...args]);
    try {
      expect(code).toBe(0);
      const [, port] = /http:\/\/127\.0\.0\.1:(\d+)\/#token=\S+$/m.exec(stderr)!;
      const where = { type: 'inet', host: '127.0.0.1', port: Number(port) } as const;
      expect((await askHttp(where, '/state')).status).toBe(200);
    } finally {
      const pid = Number(await readFile(pidfile, 'utf8'));
      process.kill(pid, 'SIGTERM');
      await expect.poll(() => existsSync(pidfile)).toBe(false);
    }
  });

  test.each([
    [['--http', '0.0.0.0:80'], /0\.0\.0\.0 is not this machine alone/],
    [['--http', 'somewhere'], /127\.0\.0\.1:PORT/],
    [['--http-token', 'file'], /--http-token goes with --http/],
  ])('refuses %j as misuse', async (args, message) => {
    const { code, stderr } = await runCli(['daemon', ...args]);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});
