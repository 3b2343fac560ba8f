export { planGranularity } from './granularity.js';
export { type Plan, type PlanOptions, plan, planDevice } from './plan.js';
export { openForPlan, walkPlan } from './plan-walk.js';
export { walkStatus } from './status-walk.js';
