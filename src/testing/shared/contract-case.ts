/** One test of a contract suite, for any runner: `for (const { name, run } of suite) it(name, run)`. */
export interface ContractCase {
  /** A sentence. */
  readonly name: string;
  /** Rejects when the contract is broken. */
  run(): Promise<void>;
}
