/** What kinds of refusals QMP knows; nearly all are `GenericError`. */
export type QmpErrorClass =
  | 'GenericError'
  | 'CommandNotFound'
  | 'DeviceNotActive'
  | 'DeviceNotFound'
  | 'KVMMissingCap';

/** A command throws it to choose the class of the error that its client gets. Its message is told as it is. */
export class QmpCommandError extends Error {
  /** The class of the error; clients tell cases apart by it. */
  readonly errorClass: QmpErrorClass;

  constructor(errorClass: QmpErrorClass, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'QmpCommandError';
    this.errorClass = errorClass;
  }
}
