/**
 * Lets all happen that can happen in this process without the world: so many turns of its event loop. On a busy machine
 * they take longer, and there are as many.
 */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}
