export { registerDigest } from './digest.js';
export { checkDigestFile, storeDigest } from './digest-file.js';
