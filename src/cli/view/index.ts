export { compareWithBar } from './compare-with-bar.js';
export { describeCopy, describeEffort, showProgress } from './copy-report.js';
export { extentJson, tableHeading, tableLine } from './extent-table.js';
export { type PictureRow, renderPicture } from './picture.js';
