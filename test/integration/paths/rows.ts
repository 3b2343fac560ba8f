/** Writes all rows as JSON; start.ts starts it. */
import { writeFileSync } from 'node:fs';
import { makeGround } from './ground.js';
import { runAll } from './matrix.js';

const [, , folder, output] = process.argv;
writeFileSync(output, JSON.stringify(await runAll(await makeGround(folder))));
