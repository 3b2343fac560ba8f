/** A failure that nobody hears of ends the process, as of any promise; one that somebody hears of does not. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

/** Runs a program with a job that fails; its exit code is 99 if it gets to its end. */
function run(body: string): { status: number | null; stderr: string; stdout: string } {
  const program = `
    import { compare, copy, copyFromStream, copyToStream, digest, plan, populate, rebase, commit } from 'lacuna';
    import { Bitmap } from 'lacuna/bitmap';
    import { setTimeout as sleep } from 'node:timers/promises';
    const bad = { source: '/nowhere/disk.raw', target: '/nowhere/copy.raw' };
    /** Waits until a job has failed, and what nobody hears of has ended the process. */
    const failed = async ({ job }) => {
      while (job.state !== 'failed') await sleep(1);
      await sleep(1);
    };
    process.exitCode = 99;
    ${body}
  `;
  const options = { encoding: 'utf8', timeout: 60_000 } as const;
  return spawnSync(process.execPath, ['--input-type=module', '-e', program], options);
}

describe('a failure that nobody hears of', () => {
  it.each([
    ['copy', 'copy(bad);'],
    ['copy that only tells progress', "copy(bad).on('progress', () => {});"],
    ['copy whose loop was left', 'for await (const _ of copy(bad)) break;'],
    ['copy that is awaited too late', 'const job = copy(bad); await failed({ job }); await job;'],
    ['copy whose end alone is listened to', "copy(bad).on('done', () => {});"],
    ['copyFromStream', "copyFromStream(process.stdin, '/nowhere/copy.raw');"],
    ['copyToStream', "copyToStream('/nowhere/disk.raw', process.stdout);"],
    ['compare', "compare({ a: '/nowhere/a.raw', b: '/nowhere/b.raw' });"],
    ['plan', 'plan({ source: bad.source });'],
    ['digest', "digest('/nowhere/disk.raw');"],
    ['commit', "commit({ top: '/nowhere/disk.qcow2' });"],
    ['rebase', "rebase({ image: '/nowhere/disk.qcow2', backing: null });"],
    [
      'populate',
      "populate({ sources: ['/nowhere/disk.raw'], targets: [new Bitmap({ size: 4096, granularity: 512 })] });",
    ],
    [
      'a digest that was left by a loop',
      "for await (const _ of digest('/nowhere/disk.raw')) break;",
    ],
  ])('ends the process: %s', (_title, body) => {
    const { status, stderr } = run(body);
    expect(stderr).toContain('/nowhere/');
    expect(status).toBe(1);
  });
});

describe('a failure that somebody hears of', () => {
  it.each([
    ['a copy that is awaited', 'await copy(bad).catch(() => {});'],
    ['a copy that is awaited by then()', 'copy(bad).then(() => {}, () => {});'],
    ['a copy that is registered', 'const job = copy(bad).register(); await failed({ job });'],
    [
      'a comparison with a listener',
      "const job = compare({ a: '/nowhere/a', b: '/nowhere/b' }).on('failed', () => {}); await failed({ job });",
    ],
    [
      'a copy with a listener',
      "const job = copy(bad).on('failed', ({ code }) => console.log(code)); await failed({ job });",
    ],
    [
      'a copy that is iterated',
      'const job = copy(bad); try { for await (const _ of job) await failed({ job }); } catch {}',
    ],
    [
      'a copy whose loop was left, and that is then awaited',
      'const job = copy(bad); for await (const _ of job) break; await job.catch(() => {});',
    ],
    [
      'a copy that is iterated, with a listener for progress',
      "const job = copy(bad); job.on('progress', () => {}); try { for await (const _ of job); } catch {}",
    ],
  ])('does not end the process: %s', (_title, body) => {
    const { status, stderr } = run(body);
    expect(stderr).toBe('');
    expect(status).toBe(99);
  });

  it('is told to its listeners once, with the error, and success with the report', () => {
    const { stdout, status } = run(`
      copy(bad).on('failed', (error) => console.log('failed', error.code));
      const job = copy({ source: { driver: 'null', size: 4096 }, target: { driver: 'memory', size: 4096 } });
      job.on('done', ({ size }) => console.log('done', size));
      await job;
    `);
    expect(stdout.split('\n').sort()).toEqual(['', 'done 4096', 'failed ERR_DEVICE_OPEN']);
    expect(status).toBe(99);
  });
});
