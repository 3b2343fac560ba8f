import { LacunaError } from '../../../errors/index.js';

/** The client library of Prometheus. */
export type Prometheus = typeof import('prom-client');

/**
 * Loads the library that writes metrics, which is installed by those who want them.
 *
 * @throws LacunaError ERR_PACKAGE_MISSING
 */
export async function loadPrometheus(
  load: () => Promise<{ default: Prometheus }> = () => import('prom-client') as never,
): Promise<Prometheus> {
  try {
    return (await load()).default;
  } catch (cause) {
    const message =
      'metrics need the package prom-client, which is not installed: run "npm install prom-client" beside lacuna';
    throw new LacunaError('ERR_PACKAGE_MISSING', message, { cause });
  }
}
