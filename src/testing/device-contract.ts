import {
  byteTests,
  checkDeviceContract,
  type DeviceContractOptions,
  type DeviceTest,
  misuseTests,
  modelTests,
  statusTests,
} from './device/index.js';
import type { ContractCase } from './shared/index.js';

/**
 * The tests that every device must pass, whatever its driver, as a list for any test runner. Cases that write are
 * left out for a device that does not keep what is written; a read-only device passes the others.
 */
export function deviceContract(options: DeviceContractOptions): ContractCase[] {
  checkDeviceContract('deviceContract', options);
  const { keeps = true } = options;
  const tests = {
    ...misuseTests,
    ...statusTests,
    ...(keeps ? { ...byteTests, ...modelTests } : {}),
  };
  return Object.entries(tests).map(([name, test]) => ({
    name,
    run: () => runWith(options, test),
  }));
}

async function runWith(options: DeviceContractOptions, test: DeviceTest): Promise<void> {
  const { device, dispose } = await options.open();
  try {
    await test(device, options);
  } finally {
    await device.close();
    await dispose();
  }
}
