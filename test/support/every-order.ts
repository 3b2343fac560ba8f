/**
 * Plays something again and again, so that every choice is made in every way: `play` calls `choose(count)` wherever things may
 * go one way or another, and goes the way of the answer, 0 to `count - 1`. It must do the same whenever the same was chosen.
 *
 * @returns how many ways there were
 */
export async function everyOrder(
  play: (choose: (count: number) => number) => Promise<void>,
): Promise<number> {
  const path: number[] = [];
  let plays = 0;
  do {
    const counts: number[] = [];
    await play((count) => {
      const depth = counts.length;
      counts.push(count);
      if (depth === path.length) path.push(0);
      return path[depth];
    }).catch((error: Error) => {
      error.message = `${error.message} (choices: ${path.join(', ')})`;
      throw error;
    });
    plays++;
    while (path.length > 0 && path.at(-1)! + 1 >= counts[path.length - 1]) path.pop();
    if (path.length > 0) path[path.length - 1]++;
  } while (path.length > 0);
  return plays;
}
