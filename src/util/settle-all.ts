/** Waits for all, so that nothing runs on behind the caller's back, then fails as the first one in time did. */
export async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  const failures: unknown[] = [];
  await Promise.all(work.map((one) => one.catch((error) => failures.push(error))));
  if (failures.length > 0) throw failures[0];
}
