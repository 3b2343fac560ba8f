/** Does some work, then closes what it needed; a failure of the work is never hidden by one of the closing. */
export async function closeAfter<T>(
  work: () => Promise<T>,
  close: () => Promise<void>,
): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    await close().catch(() => {});
    throw error;
  }
  await close();
  return result;
}
