export { compareWithBar } from './compare-with-bar.js';
export { describeCopy, describeEffort, showCopy } from './copy-report.js';
export { extentJson, tableHeading, tableLine } from './extent-table.js';
export { describeMachinePlan } from './machine-plan.js';
export { type PictureRow, renderCells, renderPicture } from './picture.js';
export { showRepositoryJob } from './repository-job.js';
export { progressDocument, showJob, showReading, showWriting } from './show-job.js';
export { steerBySignals } from './steer-by-signals.js';
