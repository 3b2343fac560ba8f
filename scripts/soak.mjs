/**
 * Runs the random tests from new seeds, one file after the other and over again, for so many minutes:
 *
 *     npm run soak -- MINUTES [PART-OF-A-NAME...]
 *
 * Says for each failure how to repeat it. Exits with 0 where nothing failed, 1 where something did, 2 where it was
 * called in a wrong way. Ctrl-C ends it early, with the same summary.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

/** npm starts it in the folder of the package. */
const ROOT = process.cwd();
const VITEST = join(ROOT, 'node_modules/vitest/vitest.mjs');
/** What a file does in one turn, in times of what it does in the suite: a turn has to be worth its start. */
const RUNS = '5x';
/** By what a file shows that it takes its chance from a seed. */
const RANDOM = /Random\.seed\(\)|firstSeed\(\)|support\/fast-check\.js'/;
const USAGE = 'usage: npm run soak -- MINUTES [PART-OF-A-NAME...]';
const NEWER =
  'Running machines are those of the QEMU that is installed. "node scripts/newer-qemu.mjs FOLDER" brings a newer one, which pushes as well, and says which variables to set.';
const SHOWN_LINES = 40;
/** More than three weeks, as long as a timer of Node can be. */
const MOST_MINUTES = 35_000;

/** Files of random tests whose path has one of these parts; all of them where no part is given. */
function filesWith(parts) {
  return readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.test.ts'))
    .map((file) => `test/${file}`)
    .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)))
    .filter((file) => RANDOM.test(readFileSync(join(ROOT, file), 'utf8')))
    .sort();
}

class Soak {
  #files;
  #turns = 0;
  #runs = 0;
  #isOver = false;
  #running = new Set();
  #failures = [];
  #ends;

  constructor(files, minutes) {
    this.#files = files;
    this.#ends = setTimeout(() => this.stop(), minutes * 60_000);
  }

  /** Ends the tests that run, and starts no others. */
  stop() {
    this.#isOver = true;
    clearTimeout(this.#ends);
    for (const child of this.#running) endGroup(child);
  }

  async run() {
    const workers = Math.min(availableParallelism(), this.#files.length);
    await Promise.all(Array.from({ length: workers }, () => this.#work()));
    return this.#summary();
  }

  async #work() {
    while (!this.#isOver) {
      const file = this.#files[this.#turns++ % this.#files.length];
      await this.#turn(file, 1 + Math.floor(Math.random() * (2 ** 31 - 2)));
    }
  }

  async #turn(file, seed) {
    const began = Date.now();
    const { code, output } = await this.#vitest(file, {
      LACUNA_SEED: `${seed}`,
      LACUNA_RUNS: RUNS,
    });
    if (this.#isOver && code !== 0) {
      const seconds = Math.round((Date.now() - began) / 1000);
      console.log(`ended   ${file}, seed ${seed}, in the middle after ${seconds} s`);
      return;
    }
    this.#runs++;
    if (code === 0) {
      console.log(`ok      ${file}, seed ${seed}`);
      return;
    }
    const commands = [`LACUNA_SEED=${seed} LACUNA_RUNS=${RUNS} npx vitest run ${file}`];
    // Many a failure names the one input that shows it again by itself.
    const named = new Set(output.match(/(?<=LACUNA_SEED=)\d+/g));
    named.delete(`${seed}`);
    for (const one of named) commands.push(`LACUNA_SEED=${one} npx vitest run ${file}`);
    this.#failures.push(commands);
    console.log(`FAILED  ${file}, seed ${seed}\n${indented(endOf(output))}`);
    console.log(`Repeat it with:\n${indented(commands.join('\nor, shorter, '))}\n`);
  }

  #vitest(file, env) {
    const child = spawn(process.execPath, [VITEST, 'run', file, '--no-color'], {
      cwd: ROOT,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A group of its own, so that Ctrl-C comes to us alone, and whatever a test started ends with it.
      detached: true,
    });
    this.#running.add(child);
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        output += text;
      });
    }
    return new Promise((resolve) => {
      const ended = (code) => {
        this.#running.delete(child);
        resolve({ code, output });
      };
      child.once('error', (error) => {
        output += error.message;
        ended(1);
      });
      child.once('close', ended);
    });
  }

  #summary() {
    const failed = this.#failures.length;
    console.log(`\n${this.#runs} turns of ${this.#files.length} files: ${failed} failed.`);
    for (const [command] of this.#failures) console.log(`  ${command}`);
    if (failed > 0) console.log('Fix what they find, and keep it as a test.');
    return failed === 0 ? 0 : 1;
  }
}

function endGroup(child) {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGTERM');
    setTimeout(() => killGroup(child), 5000).unref();
  } catch {
    // It has ended.
  }
}

function killGroup(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

const endOf = (text) => text.trimEnd().split('\n').slice(-SHOWN_LINES).join('\n');
const indented = (text) => text.replace(/^/gm, '    ');

async function main([minutes, ...parts]) {
  if (!(Number(minutes) > 0 && Number(minutes) <= MOST_MINUTES)) {
    console.error(
      `${USAGE}\nMINUTES is a number above 0 and up to ${MOST_MINUTES}, for example 10.`,
    );
    return 2;
  }
  const files = filesWith(parts);
  if (files.length === 0) {
    console.error(`${USAGE}\nNo random test has "${parts.join('" or "')}" in its name.`);
    return 2;
  }
  console.log(`${files.length} files of random tests, for ${minutes} minutes. Ctrl-C ends it.`);
  if (!process.env.LACUNA_STORAGE_DAEMON && files.some((file) => file.includes('/qemu/'))) {
    console.log(NEWER);
  }
  const soak = new Soak(files, Number(minutes));
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => soak.stop());
  return soak.run();
}

process.exitCode = await main(process.argv.slice(2));
