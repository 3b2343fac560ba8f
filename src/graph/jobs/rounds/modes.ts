/**
 * What is taken: `full`, everything; `top`, what the top layer of a chain of images holds; `bitmap`, what is dirty; `incremental`, the same
 * with the bitmap mode `on-success`; `none`, only what is written or about to be written.
 */
export type SyncMode = 'full' | 'top' | 'bitmap' | 'incremental' | 'none';

/**
 * What becomes of the bitmap of a job: `on-success`, it forgets what the job has taken, if that has succeeded, and nothing if it has not;
 * `always`, it forgets what was really taken; `never`, it goes on as if there had been no job.
 */
export type BitmapMode = 'on-success' | 'always' | 'never';
