export type { Entered, Offer, Outcome } from './agreement.js';
export { negotiate, negotiateInTls } from './negotiation.js';
