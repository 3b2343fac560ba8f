import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DRIVERS } from '#dist/block/drivers/index.js';
import { checkDescription } from '#dist/block/index.js';

/** The keys that are known where this unknown one stands, as the error lists them. */
function keysKnown(description: Record<string, unknown>): string[] {
  try {
    checkDescription(description);
  } catch (error) {
    const [, keys] = /has the keys: (.+)$/.exec((error as Error).message) ?? [];
    if (keys !== undefined) return keys.split(', ');
  }
  throw new Error(`no keys are told of ${JSON.stringify(description)}`);
}

/** The first cells of the tables between a heading, or a table's head, and the next one. */
function keysExplained(page: string, start: RegExp): string[] {
  const [, rest] = page.split(start);
  const [section] = rest.split(/^(?:#|\| key of)/m);
  return [...section.matchAll(/^\| `([^`]+)` /gm)].map((match) => match[1]);
}

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
}

/** Where users read of variables of the environment. */
const USERS = ['README.md', 'docs/command-line.md', 'docs/live-backup.md'];

const PAGES = [
  ...['README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'UPGRADING.md', 'bench/README.md'],
  ...readdirSync(new URL('../../docs', import.meta.url))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** Pages that a page links to, as it names them. */
function linksIn(page: string): string[] {
  return [...read(page).matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]);
}

describe('docs', () => {
  test('explain every error code under a heading of its own, and no other', () => {
    const codes = [...read('src/errors/codes.ts').matchAll(/'(ERR_\w+)'/g)].map(
      (match) => match[1],
    );
    const headings = [...read('docs/errors.md').matchAll(/^## (ERR_\w+)$/gm)].map((m) => m[1]);
    expect(headings).toEqual(codes);
  });

  test.each(PAGES)('%s links only to files that are there', (page) => {
    const links = linksIn(page);
    const own = new URL(`../../${page}`, import.meta.url);
    const missing = links.filter((link) => !existsSync(new URL(link, own)));
    expect(missing).toEqual([]);
  });

  test('README leads to every page', () => {
    const reached = linksIn('README.md');
    expect(PAGES.filter((page) => page !== 'README.md' && !reached.includes(page))).toEqual([]);
  });

  test.each(['README.md', 'docs/api-guide.md'])(
    '%s imports only names that the package exports',
    async (page) => {
      const imports = [...read(page).matchAll(/^import \{ (.+) \} from '(lacuna[^']*)';$/gm)];
      expect(imports).not.toEqual([]);
      for (const [, names, subpath] of imports) {
        const room = (await import(subpath)) as Record<string, unknown>;
        for (const name of names.split(', ')) expect(room, subpath).toHaveProperty(name);
      }
    },
  );

  test('the API guide names all that the package does', async () => {
    const names = Object.keys(await import('lacuna'));
    expect(names.filter((name) => !read('docs/api-guide.md').includes(`\`${name}\``))).toEqual([]);
  });

  test('name every variable of the environment, and no other', () => {
    const named = (paths: string[]) =>
      [...new Set(paths.flatMap((path) => read(path).match(/\bLACUNA_[A-Z_]+/g) ?? []))].sort();
    const filesIn = (folder: string) =>
      readdirSync(new URL(`../../${folder}`, import.meta.url), {
        recursive: true,
        encoding: 'utf8',
      })
        .filter((name) => name.endsWith('.ts'))
        .map((name) => `${folder}/${name}`);
    const used = named(filesIn('src'));
    expect(used.filter((name) => !named(USERS).includes(name))).toEqual([]);
    const own = named([...filesIn('test'), ...filesIn('bench')]);
    const told = named([...USERS, 'CONTRIBUTING.md']);
    expect(told).toEqual([...new Set([...used, ...own])].sort());
  });

  test('README names only scripts of package.json', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read('README.md').matchAll(/npm run (\w+)/g)].map((match) => match[1]);
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
  });

  describe('explain the keys of descriptions', () => {
    const page = read('docs/descriptions.md');
    const common = keysExplained(page, /^## Every driver$/m);
    const server = { type: 'unix', path: '/x' };

    test.each(Object.keys(DRIVERS))('of the driver %s', (driver) => {
      const explained = keysExplained(page, new RegExp(`^## \`${driver}\`.*$`, 'm'));
      expect([...common, ...explained].sort()).toEqual(keysKnown({ driver, unknown: true }).sort());
    });

    test.each([
      ['server', ['unix', 'inet'], (type: string) => ({ server: { type, unknown: true } })],
      ['tls', ['x509', 'psk'], (type: string) => ({ server, tls: { type, unknown: true } })],
    ])('of %s', (key, types, describe) => {
      const explained = keysExplained(page, new RegExp(`^\\| key of \`${key}\`.*$`, 'm'));
      const known = types.flatMap((type) => keysKnown({ driver: 'nbd', ...describe(type) }));
      expect(explained.sort()).toEqual([...new Set(known)].sort());
    });
  });
});
