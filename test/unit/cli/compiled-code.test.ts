/** Where Node keeps the compiled code of the command: only where nobody else can put code for this user to run. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, statSync, symlinkSync } from 'node:fs';
import nodeModule from 'node:module';
import { join } from 'node:path';
import { afterEach, expect, test, vi } from 'vitest';
import { keepCompiledCode } from '../../../src/cli/compiled-code.js';
import { temporaryFolder } from '../../support/temporary-folder.js';

const folder = temporaryFolder();
const newHome = () => mkdtempSync(join(folder, 'home-'));

afterEach(() => void vi.unstubAllEnvs());

/** The folder that Node is told to use; undefined where it is not told any. */
function folderFor({ HOME = '', XDG_CACHE_HOME = '', NODE_COMPILE_CACHE = '' }) {
  const variables = Object.entries({ HOME, XDG_CACHE_HOME, NODE_COMPILE_CACHE });
  for (const [name, value] of variables) vi.stubEnv(name, value);
  const node = nodeModule as { enableCompileCache?: unknown };
  const before = node.enableCompileCache;
  const enable = vi.fn();
  node.enableCompileCache = enable;
  try {
    keepCompiledCode();
    return enable.mock.calls[0]?.[0];
  } finally {
    node.enableCompileCache = before;
  }
}

test('the folder for compiled code is made in the cache folder of the user, for that user alone', () => {
  const home = newHome();
  const made = folderFor({ HOME: home });
  expect(made).toBe(join(home, '.cache/lacuna'));
  for (const path of [join(home, '.cache'), made]) expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(folderFor({ HOME: home })).toBe(made);
  expect(folderFor({ HOME: '/not/used', XDG_CACHE_HOME: home })).toBe(join(home, 'lacuna'));
});

test('no compiled code is kept where others could change it', () => {
  const open = newHome();
  mkdirSync(join(open, '.cache/lacuna'), { recursive: true });
  for (const mode of [0o755, 0o770, 0o702]) {
    chmodSync(join(open, '.cache/lacuna'), mode);
    expect({ mode, found: folderFor({ HOME: open }) }).toEqual({ mode, found: undefined });
  }
  const above = newHome();
  expect(folderFor({ HOME: above })).toBeDefined();
  chmodSync(join(above, '.cache'), 0o775);
  expect(folderFor({ HOME: above })).toBeUndefined();
});

test('no compiled code is kept in a folder that a link leads to, or a file is in the place of', () => {
  const home = newHome();
  mkdirSync(join(home, '.cache'), { mode: 0o700 });
  mkdirSync(join(home, 'elsewhere'), { mode: 0o700 });
  symlinkSync('../elsewhere', join(home, '.cache/lacuna'));
  expect(folderFor({ HOME: home })).toBeUndefined();
});

test('no compiled code is kept in the home of another user', () => {
  const home = newHome();
  mkdirSync(join(home, '.cache'), { mode: 0o700 });
  const other = process.geteuid!() + 1;
  const geteuid = vi.spyOn(process, 'geteuid').mockReturnValue(other);
  expect(folderFor({ HOME: home })).toBeUndefined();
  geteuid.mockRestore();
});

test('no home is made for a user who has none', () => {
  const home = join(folder, 'none');
  expect(folderFor({ HOME: home })).toBeUndefined();
  expect(existsSync(home)).toBe(false);
  expect(folderFor({})).toBeUndefined();
  expect(folderFor({ HOME: 'relative' })).toBeUndefined();
});

test('the folder that the user has given Node stays', () => {
  const home = newHome();
  expect(folderFor({ HOME: home, NODE_COMPILE_CACHE: '/said' })).toBeUndefined();
  expect(existsSync(join(home, '.cache'))).toBe(false);
});

test('no folder is made where Node cannot keep compiled code', () => {
  const home = newHome();
  vi.stubEnv('HOME', home);
  vi.stubEnv('XDG_CACHE_HOME', '');
  const node = nodeModule as { enableCompileCache?: unknown };
  const before = node.enableCompileCache;
  node.enableCompileCache = undefined;
  try {
    keepCompiledCode();
  } finally {
    node.enableCompileCache = before;
  }
  expect(existsSync(join(home, '.cache'))).toBe(false);
});
