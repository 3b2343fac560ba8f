/** fast-check with the seed that all random tests begin with. Tests import it from here, never from the package. */
import fc from 'fast-check';
import { firstSeed, stepsOr } from './long-run.js';

/** What fast-check does of each property where a test does not say. */
const USUAL_RUNS = 100;

fc.configureGlobal({ seed: firstSeed(), numRuns: stepsOr(USUAL_RUNS) });

export default fc;
