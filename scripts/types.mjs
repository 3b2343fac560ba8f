// Copies the declarations that the package's exports need into dist/types, which is what is published of them: those of
// everything else would be a third of the package.
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

const { exports } = JSON.parse(await readFile('package.json', 'utf8'));
const PLACE = 'dist/types';

/** The declarations that one imports, by any form of the words `from` and `import`. */
function importedBy(file, text) {
  const names = text.matchAll(/(?:\bfrom|\bimport|\bimport\()\s*['"](\.[^'"]+)\.js['"]/g);
  return [...names].map(([, name]) => join(dirname(file), `${name}.d.ts`));
}

const left = Object.values(exports)
  .flatMap(({ types }) => types ?? [])
  .map((path) => path.replace(`./${PLACE}/`, 'dist/'));
const done = new Set();

await rm(PLACE, { recursive: true, force: true });
while (left.length > 0) {
  const file = left.pop();
  if (done.has(file)) continue;
  done.add(file);
  const text = await readFile(file, 'utf8');
  left.push(...importedBy(file, text));
  const copy = join(PLACE, relative('dist', file));
  await mkdir(dirname(copy), { recursive: true });
  // The maps lead to sources, which are not published either.
  await writeFile(copy, text.replace(/^\/\/# sourceMappingURL=.*$\n?/m, ''));
}
