import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
}

describe('docs', () => {
  test('explain every error code under a heading of its own, and no other', () => {
    const codes = [...read('src/errors/codes.ts').matchAll(/'(ERR_\w+)'/g)].map(
      (match) => match[1],
    );
    const headings = [...read('docs/errors.md').matchAll(/^## (ERR_\w+)$/gm)].map((m) => m[1]);
    expect(headings).toEqual(codes);
  });

  test.each([
    'README.md',
    'CONTRIBUTING.md',
    'docs/architecture.md',
    'docs/errors.md',
    'docs/digest.md',
  ])('%s links only to files that are there', (page) => {
    const links = [...read(page).matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map((match) => match[1]);
    const missing = links.filter((link) => !existsSync(new URL(`../../${link}`, import.meta.url)));
    expect(missing).toEqual([]);
  });

  test('README imports only names that the package exports', async () => {
    const imports = read('README.md').matchAll(/^import \{ (.+) \} from '(lacuna[^']*)';$/gm);
    for (const [, names, subpath] of imports) {
      const room = (await import(subpath)) as Record<string, unknown>;
      for (const name of names.split(', ')) expect(room, subpath).toHaveProperty(name);
    }
  });

  test('README names only scripts that there are', () => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
    const named = [...read('README.md').matchAll(/npm run (\w+)/g)].map((match) => match[1]);
    expect(named.filter((name) => scripts[name] === undefined)).toEqual([]);
  });
});
