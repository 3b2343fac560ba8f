import { ThrottleGroup } from '../../block/index.js';
import type { NbdTls } from '../../nbd/index.js';
import { isId, refusal } from './refusal.js';
import { changedLimits, LIMIT_NAMES, type NamedLimits, namedLimits } from './throttle-limits.js';

/** Limits that nodes share. */
export interface GroupObject {
  readonly type: 'throttle-group';
  readonly group: ThrottleGroup;
}

/** What one side of TLS proves itself with. */
export interface CredentialsObject {
  readonly type: 'tls-creds-x509' | 'tls-creds-psk';
  readonly endpoint: 'client' | 'server';
  readonly tls: NbdTls;
  /** What clients have said of it. */
  readonly said: Readonly<Record<string, unknown>>;
}

/** What others name by an id, and that is no node. */
type DaemonObject = GroupObject | CredentialsObject;

/** The objects of a daemon by their names. */
export class Objects {
  readonly #objects = new Map<string, DaemonObject>();

  /** The names of all. */
  get ids(): readonly string[] {
    return [...this.#objects.keys()];
  }

  /** @throws QmpCommandError where it is no name. */
  checkId(id: string): void {
    if (!isId(id)) throw refusal("Parameter 'id' expects an identifier");
  }

  /** @throws QmpCommandError where the name is another one's. */
  checkFree(id: string): void {
    if (!this.#objects.has(id)) return;
    throw refusal(`attempt to add duplicate property '${id}' to object (type 'container')`);
  }

  /** @throws as {@link checkFree} */
  add(id: string, object: DaemonObject): void {
    this.checkFree(id);
    this.#objects.set(id, object);
  }

  /** @throws QmpCommandError where it is not there, or somebody uses it. */
  remove(id: string): void {
    const object = this.#objects.get(id);
    if (object === undefined) throw refusal(`object '${id}' not found`);
    if (object.type === 'throttle-group' && object.group.users > 0) {
      throw refusal(`object '${id}' is in use, can not be deleted`);
    }
    this.#objects.delete(id);
  }

  /** Takes all limits away, also from requests that wait. */
  endLimits(): void {
    const { limits: none } = new ThrottleGroup();
    for (const object of this.#objects.values()) {
      if (object.type === 'throttle-group') object.group.set(none);
    }
  }

  /** @throws QmpCommandError */
  group(id: string): ThrottleGroup {
    const object = this.#objects.get(id);
    if (object?.type === 'throttle-group') return object.group;
    throw refusal(`Throttle group '${id}' does not exist`);
  }

  /** @throws QmpCommandError */
  credentials(id: string, endpoint: 'client' | 'server'): NbdTls {
    const object = this.#objects.get(id);
    if (object === undefined) throw refusal(`No TLS credentials with id '${id}'`);
    if (object.type === 'throttle-group') {
      throw refusal(`Object with id '${id}' is not TLS credentials`);
    }
    if (object.endpoint === endpoint) return object.tls;
    throw refusal(
      endpoint === 'server'
        ? 'Expected TLS credentials for a server endpoint'
        : 'Expecting TLS credentials with a client endpoint',
    );
  }

  /** A property of an object that a path such as `/objects/g` leads to. @throws QmpCommandError */
  get(path: string, property: string): unknown {
    const object = this.#at(path);
    if (property === 'type') return object.type;
    if (object.type !== 'throttle-group') {
      if (Object.hasOwn(object.said, property)) return object.said[property];
      throw unknownProperty(object, property);
    }
    const limits = namedLimits(object.group.limits);
    if (property === 'limits') return limits;
    const name = property.slice(2);
    if (property.startsWith('x-') && LIMIT_NAMES.includes(name)) return limits[name];
    throw unknownProperty(object, property);
  }

  /** @returns sets the limits of the group at the path. @throws QmpCommandError where that is no such property. */
  setter(path: string, property: string): (limits: NamedLimits) => void {
    const object = this.#at(path);
    this.get(path, property);
    if (object.type !== 'throttle-group' || property === 'type') {
      throw refusal(`Property '${object.type}.${property}' is not writable`);
    }
    if (property !== 'limits') throw refusal('Property cannot be set after initialization');
    const { group } = object;
    return (limits) => group.set(changedLimits(group.limits, limits));
  }

  #at(path: string): DaemonObject {
    const [, id] = /^(?:\/?objects\/)?([^/]+)$/.exec(path) ?? [];
    const object = id === undefined ? undefined : this.#objects.get(id);
    if (object !== undefined) return object;
    throw refusal(`Device '${path}' not found`, 'DeviceNotFound');
  }
}

function unknownProperty({ type }: DaemonObject, property: string) {
  return refusal(`Property '${type}.${property}' not found`);
}
