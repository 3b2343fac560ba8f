/**
 * How much a random test does. Every run of the suite does a little, from a new seed; a long run of one file
 * does as much as LACUNA_RUNS says, in that file's own unit (CONTRIBUTING.md has a table). LACUNA_SEED begins
 * where another run began; alone it repeats the one input that a failure named.
 */

/** `usual`, or as many as the environment says; one where it gives a seed alone. */
export function runsOr(usual: number): number {
  const { LACUNA_RUNS: runs, LACUNA_SEED: seed } = process.env;
  if (runs !== undefined) return positive('LACUNA_RUNS', runs);
  return seed === undefined ? usual : 1;
}

/** `usual`, or as many as the environment says; for tests in which one seed makes all of the inputs. */
export function stepsOr(usual: number): number {
  const { LACUNA_RUNS: steps } = process.env;
  return steps === undefined ? usual : positive('LACUNA_RUNS', steps);
}

/** The seed from the environment, or a new one, which a long run prints. */
export function firstSeed(): number {
  const { LACUNA_RUNS: runs, LACUNA_SEED: given } = process.env;
  if (given !== undefined) return positive('LACUNA_SEED', given);
  const seed = 1 + Math.floor(Math.random() * 2 ** 31);
  if (runs !== undefined) console.log(`LACUNA_SEED=${seed} begins this run again`);
  return seed;
}

function positive(name: string, text: string): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new RangeError(`${name} must be a whole number above 0, not "${text}"`);
}
