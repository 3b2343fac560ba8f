import type { CommandRow } from '../../shell/index.js';

/** `lacuna migrate` in the list of commands. */
export const migrateRow: CommandRow = {
  usage: 'migrate [options] [target]',
  summary: 'move a running machine by what has changed since a backup',
  load: async () => (await import('./migrate.js')).registerMigrate,
};
