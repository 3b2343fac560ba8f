import { expect, test } from 'vitest';
import { qmpPage } from '../../support/qmp-page.js';

test('docs/qmp.md says what the schema says', async () => {
  await expect(qmpPage()).toMatchFileSnapshot('../../../docs/qmp.md');
});
