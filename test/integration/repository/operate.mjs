/** One operation on a repository, in a process that may be killed. */
import { Repository } from 'lacuna/repository';

process.once('message', async ({ repository: path, method, options }) => {
  const repository = Repository.openWith(path, { create: true, smallImage: 0 });
  process.send('begun');
  await repository[method](options);
  process.send('done');
  process.disconnect();
});
