import { Virsh, type VirshDomain } from './virsh.js';

/** The guest agent of a domain, as libvirt gives it. */
export class VirshAgent {
  readonly name: string;
  readonly #virsh: Virsh;
  readonly #args: readonly string[];

  constructor({ connect, uuid }: VirshDomain) {
    this.#virsh = new Virsh(connect);
    this.name = `the guest agent of ${uuid}`;
    this.#args = ['--domain', uuid];
  }

  /**
   * @returns how many file systems are frozen
   * @throws LacunaError ERR_LIBVIRT, ERR_TIMEOUT: then it may be frozen all the same.
   */
  async freeze({ timeoutMs }: { timeoutMs: number }): Promise<number> {
    return await this.#count('domfsfreeze', timeoutMs);
  }

  /**
   * @returns how many file systems were thawed
   * @throws as {@link freeze}
   */
  async thaw({ timeoutMs }: { timeoutMs: number }): Promise<number> {
    return await this.#count('domfsthaw', timeoutMs);
  }

  /** Nothing is open between two calls. */
  async [Symbol.asyncDispose](): Promise<void> {}

  /** virsh says the number, in words, and nowhere else. */
  async #count(command: string, timeoutMs: number): Promise<number> {
    const text = await this.#virsh.run(command, this.#args, { timeoutMs, talks: true });
    return Number(/\d+/.exec(text)?.[0] ?? 0);
  }
}
