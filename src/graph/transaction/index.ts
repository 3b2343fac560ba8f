export {
  type GraphAction,
  type TransactionJob,
  type TransactionOptions,
  type TransactionResult,
  transaction,
} from './transaction.js';
