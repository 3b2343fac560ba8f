import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { LacunaError } from '../errors/index.js';

/** Where a program that was bundled finds a copy of this package: beside itself, or in a folder above. */
const COPY = 'lacuna';

/**
 * A file of this package below `dist`, which no bundler follows: WASM, a program of a thread or of a process. It is looked
 * for by the package's own path, because the code lies elsewhere in each bundle of it; and in a program that has taken the
 * code in, in the folder `lacuna` beside that program.
 *
 * @throws LacunaError ERR_PACKAGE_FILE
 */
export function ownFile(name: string): URL {
  const own = inPackage(name);
  if (own !== undefined && existsSync(own)) return own;
  const copy = besideProgram(name);
  if (copy !== undefined) return copy;
  const message = `${name} of the package lacuna was not found: copy its folder dist and its package.json into a folder "lacuna" beside the program that it was bundled into (docs/embedding.md)`;
  throw new LacunaError('ERR_PACKAGE_FILE', message);
}

/** Undefined outside of the package. */
function inPackage(name: string): URL | undefined {
  try {
    return new URL(import.meta.resolve(`#dist/${name}`));
  } catch {
    return undefined;
  }
}

function besideProgram(name: string): URL | undefined {
  // A bundle in the form of CommonJS has no URL of its own.
  const program: string | undefined = import.meta.url ?? pathToFileURL(process.argv[1] ?? '').href;
  for (let folder = new URL('.', program); ; folder = new URL('..', folder)) {
    const file = new URL(`${COPY}/dist/${name}`, folder);
    if (existsSync(file)) return file;
    if (folder.pathname === new URL('..', folder).pathname) return undefined;
  }
}
