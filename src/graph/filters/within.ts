/** Waits for something, but no longer than a limit; 0: no limit. False where that is over; what was waited for goes on then. */
export async function within(limitMs: number, work: Promise<unknown>): Promise<boolean> {
  if (limitMs === 0) {
    await work;
    return true;
  }
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Why something failed; undefined where it did not. */
export async function outcomeOf(work: Promise<unknown>): Promise<Error | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return error as Error;
  }
}
