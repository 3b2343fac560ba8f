import { type Changer, type Changes, called, conflict } from '../core/index.js';

/**
 * Refuses jobs that cannot end at one moment: the last round of one would write what the other has copied already.
 *
 * @param changes begin the jobs.
 * @throws LacunaError ERR_GRAPH_CONFLICT where the target of a job is the disk of another one.
 */
export function checkApart(
  { state: { view } }: Changer,
  changes: readonly Partial<Changes>[],
): void {
  const moves = changes
    .flatMap(({ begins = [] }) => begins)
    .filter(({ driver }) => driver.diskCopy !== undefined)
    .map((filter) => {
      const edges = view.from(filter);
      const target = edges.find(({ role }) => role === 'target');
      return {
        disk: view.unfiltered(edges[0].to),
        target: target && view.unfiltered(target.to),
      };
    });
  for (const move of moves) {
    const other = moves.find(({ disk }) => disk === move.target);
    if (other === undefined || other === move) continue;
    const name = called(other.disk);
    throw conflict(
      `${name} is the target of one job, and the disk of another one that is to end at the same moment: let them end individually`,
    );
  }
}
