import { join } from 'node:path';
import { ThrottleGroup } from '../../block/index.js';
import type { NbdTls } from '../../nbd/index.js';
import { tryCredentials } from '../../nbd/tls/index.js';
import {
  type Control,
  changedLimits,
  LIMIT_NAMES,
  type NamedLimits,
  refusal,
} from '../core/index.js';
import {
  about,
  anything,
  type Command,
  checkMember,
  command,
  flag,
  integer,
  list,
  optional,
  struct,
  type Type,
  text,
  union,
  word,
} from '../schema/index.js';

type Limits = Record<string, number>;

const limits = struct(
  'ThrottleLimits',
  Object.fromEntries(LIMIT_NAMES.map((name) => [name, optional(integer)])),
) as Type<Limits>;

/** The same numbers each for itself, as older command lines say them. */
const singly = Object.fromEntries(LIMIT_NAMES.map((name) => [`x-${name}`, optional(integer)]));

const endpoint = word('QCryptoTLSCredsEndpoint', 'client', 'server');

const credentials = {
  dir: about(optional(text), 'the folder of the files, which have the names that QEMU gives them'),
  endpoint: about(
    optional(endpoint),
    'for an NBD server, or for nodes that are clients; default client',
  ),
  'verify-peer': about(optional(flag), 'whether the other side must prove who it is; default true'),
  priority: about(optional(text), 'only absent'),
};

/** What `object-add` and `--object` say. */
export interface ObjectArguments {
  readonly 'qom-type': 'throttle-group' | 'tls-creds-x509' | 'tls-creds-psk';
  readonly id: string;
  readonly limits?: Limits;
  readonly dir?: string;
  readonly endpoint?: 'client' | 'server';
  readonly 'verify-peer'?: boolean;
  readonly priority?: string;
  readonly username?: string;
  readonly passwordid?: string;
  readonly [key: string]: unknown;
}

export const objectOptions: Type<ObjectArguments> = union('ObjectOptions', {
  base: {
    'qom-type': word('ObjectType', 'throttle-group', 'tls-creds-psk', 'tls-creds-x509'),
    id: text,
  },
  tag: 'qom-type',
  branches: () => ({
    'throttle-group': { limits: about(optional(limits), 'default: none'), ...singly },
    'tls-creds-psk': {
      ...credentials,
      username: about(
        optional(text),
        'of a client: whose key is used; default: the only one of the file',
      ),
    },
    'tls-creds-x509': {
      ...credentials,
      'sanity-check': about(optional(flag), 'has no effect'),
      passwordid: about(optional(text), 'only absent'),
    },
  }),
});

const PATH = {
  path: about(text, '`/objects/ID`, or `ID`'),
  property: about(text, 'of a throttle group `limits`'),
};

/** What nodes and servers name by an id. */
export const objects: readonly Command<Control>[] = [
  command({
    name: 'object-add',
    about: 'Makes limits that nodes of the driver throttle share, or reads what TLS needs.',
    boxed: objectOptions,
    run: (control: Control, options) => addObject(control, options),
  }),
  command({
    name: 'object-del',
    about: 'Removes an object that nobody uses.',
    args: { id: text },
    run: ({ objects: all }: Control, { id }) => all.remove(id),
  }),
  command({
    name: 'qom-get',
    about: 'A property of an object.',
    differs: 'Only objects that clients have added have properties.',
    args: PATH,
    returns: anything,
    run: ({ objects: all }: Control, { path, property }) => all.get(path, property),
  }),
  command({
    name: 'qom-set',
    about:
      'Changes the limits of a throttle group, also for requests that wait. Those that are not said stay.',
    args: { ...PATH, value: about(anything, 'as `limits` of object-add') },
    run: ({ objects: all }: Control, { path, property, value }) => {
      const set = all.setter(path, property);
      set(checkMember(limits, value, property));
    },
  }),
  command({
    name: 'qom-list',
    about: 'The objects, for the path `/objects`.',
    differs: 'Other paths have nothing to list.',
    args: { path: text },
    returns: list(struct('ObjectPropertyInfo', { name: text, type: text })),
    run: ({ objects: all }: Control, { path }) => {
      if (path !== '/objects') throw refusal(`Device '${path}' not found`, 'DeviceNotFound');
      const found = all.ids.map((id) => ({ name: id, type: `child<${all.get(id, 'type')}>` }));
      return [{ name: 'type', type: 'string' }, ...found];
    },
  }),
];

/** @throws QmpCommandError; LacunaError ERR_NBD_TLS where keys or certificates cannot be used. */
export async function addObject(
  { objects: all, files }: Control,
  options: ObjectArguments,
  allowed = files,
): Promise<void> {
  const { 'qom-type': type, id, ...said } = options;
  all.checkId(id);
  if (type === 'throttle-group') {
    const group = new ThrottleGroup();
    const apart = Object.entries(said).filter(([key]) => key.startsWith('x-'));
    const singles = Object.fromEntries(apart.map(([key, value]) => [key.slice(2), value]));
    group.set(changedLimits(group.limits, { ...(singles as NamedLimits), ...options.limits }));
    all.add(id, { type, group });
    return;
  }
  const { endpoint: side = 'client' } = options;
  const tls = credentialsOf(options, (path) => allowed.check(path));
  all.checkFree(id);
  await tryCredentials(tls, side);
  all.add(id, { type, endpoint: side, tls, said: { ...said, endpoint: side } });
}

const CERTIFICATE_FILES = [
  'ca-cert.pem',
  ...['server-cert.pem', 'server-key.pem'],
  ...['client-cert.pem', 'client-key.pem'],
];

function credentialsOf(options: ObjectArguments, checked: (path: string) => string): NbdTls {
  const { dir, priority, passwordid, username, 'verify-peer': verify = true } = options;
  for (const [key, value] of Object.entries({ priority, passwordid })) {
    if (value !== undefined) throw refusal(`${key} is not offered here: leave it out`);
  }
  if (dir === undefined) throw refusal("Missing 'dir' property value");
  if (options['qom-type'] === 'tls-creds-x509') {
    // Each may be a link that leads elsewhere.
    for (const name of CERTIFICATE_FILES) checked(join(dir, name));
    return { type: 'x509', certificates: checked(dir), 'verify-peer': verify };
  }
  return {
    type: 'psk',
    'psk-file': checked(join(dir, 'keys.psk')),
    ...(username !== undefined && { username }),
  };
}
