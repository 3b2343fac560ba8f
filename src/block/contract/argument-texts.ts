/** What arguments can be, as messages say it. */

export const A_SOURCE = 'a path, an NBD URI, or a description';
export const A_PATH = 'the path of the file';
