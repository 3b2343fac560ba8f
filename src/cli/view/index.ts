export { extentJson, tableHeading, tableLine } from './extent-table.js';
export { type PictureRow, renderPicture } from './picture.js';
