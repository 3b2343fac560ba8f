/**
 * How much a random test does, and from which seed. The suite does a little, from the same seed each time, so that it
 * finds the same on every machine. `npm run soak` looks for more, from new seeds: it gives LACUNA_SEED, and
 * LACUNA_RUNS in times of the usual ("5x"). LACUNA_SEED alone repeats the one input that a failure named.
 */

/** Where the suite begins. */
const USUAL_SEED = 1;

/**
 * `usual`, or as many as the environment says; one where it gives a seed alone.
 *
 * @param least of a long run, where some times of the usual are too few to believe
 */
export function runsOr(usual: number, least = 0): number {
  const { LACUNA_RUNS: runs, LACUNA_SEED: seed } = process.env;
  if (runs !== undefined) return Math.max(amount(runs, usual), runs.endsWith('x') ? least : 0);
  return seed === undefined ? usual : 1;
}

/** `usual`, or as many as the environment says; for tests in which one seed makes all of the inputs. */
export function stepsOr(usual: number): number {
  const { LACUNA_RUNS: steps } = process.env;
  return steps === undefined ? usual : amount(steps, usual);
}

/** The seed from the environment, or the usual one. */
export function firstSeed(): number {
  const { LACUNA_SEED: given } = process.env;
  return given === undefined ? USUAL_SEED : positive('LACUNA_SEED', given);
}

/** "300" is so many, "5x" is five times the usual. */
function amount(text: string, usual: number): number {
  if (!text.endsWith('x')) return positive('LACUNA_RUNS', text);
  return positive('LACUNA_RUNS', text.slice(0, -1)) * usual;
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new RangeError(`${name} must be a whole number above 0, not "${text}"`);
}
