export {
  type GraphAction,
  type TransactionOptions,
  type TransactionResult,
  transaction,
} from './transaction.js';
