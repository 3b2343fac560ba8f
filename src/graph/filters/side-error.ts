/** A request that failed, and to which of the two disks it was made. */
export class SideError extends Error {
  readonly side: 'source' | 'target';
  override readonly cause: Error;

  constructor(side: SideError['side'], cause: Error) {
    super(cause.message, { cause });
    this.side = side;
    this.cause = cause;
  }
}

/** Says which side a request was made to, should it fail. */
export async function onSide<T>(side: SideError['side'], request: Promise<T>): Promise<T> {
  try {
    return await request;
  } catch (error) {
    throw new SideError(side, error as Error);
  }
}
