import {
  type BitmapChange,
  type Changer,
  type Changes,
  joinedChanges,
  type Node,
  type Root,
} from '../../core/index.js';

/** How a job leaves the graph. */
export interface JobEnd {
  /** They leave before the change. */
  readonly roots: readonly Root[];
  readonly changes: Partial<Changes>;
  /** Behind the change, in the same turn: closes what nobody uses any more. */
  done(): Promise<void>;
  /** The change could not be made: nothing is different. */
  refused?(): void;
  /** Frees what was made for the change, which has been made or not. */
  free?(): void;
}

/** Finds out how a job ends, as the graph is now. To be called in a turn. */
export type MakeEnd = () => Promise<JobEnd>;

/** A failure behind a change, which stays. */
export type EndFailure = { readonly error: unknown } | undefined;

/**
 * Ends jobs, all of them at one moment. To be called in a turn.
 *
 * @param bitmaps change at the same moment.
 * @returns what failed behind that moment, of each job.
 * @throws where they have not ended; nothing has changed then, but that roots have left.
 */
export async function endTogether(
  changer: Changer,
  makers: readonly MakeEnd[],
  bitmaps: readonly BitmapChange[] = [],
): Promise<EndFailure[]> {
  const ends: JobEnd[] = [];
  let left: Node[] = [];
  try {
    for (const make of makers) ends.push(await make());
    for (const { roots } of ends) for (const root of roots) await changer.leave(root);
    left = await change(changer, [...ends.map(({ changes }) => changes), { bitmaps }]);
  } catch (error) {
    for (const each of ends) each.refused?.();
    throw error;
  } finally {
    for (const each of ends) each.free?.();
  }
  const closed = await failureOf(changer.state.removeOwned(left));
  const failures: EndFailure[] = [];
  for (const each of ends) failures.push(await failureOf(each.done()));
  failures[0] ??= closed;
  return failures;
}

function failureOf(work: Promise<void>): Promise<EndFailure> {
  return work.then(
    () => undefined,
    (error) => ({ error }),
  );
}

/** @returns nodes that lost a user. */
async function change(changer: Changer, all: readonly Partial<Changes>[]): Promise<Node[]> {
  const changes = joinedChanges(all);
  const { edges = [], bitmaps = [], ended = [], prepare, name } = changes;
  const isNothing = edges.length + bitmaps.length + ended.length === 0;
  if (isNothing && prepare === undefined && name === undefined) return [];
  // Each job has seen to it that its users see the same disk.
  const same = edges.map((each) => ({ ...each, isSame: true }));
  return changer.changeAndKeep({ ...changes, edges: same });
}

/** The same of one job. @throws also what failed behind the moment. */
export async function endAlone(changer: Changer, make: MakeEnd): Promise<void> {
  const [failure] = await endTogether(changer, [make]);
  if (failure !== undefined) throw failure.error;
}
