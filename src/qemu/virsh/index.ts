export {
  childOf,
  childrenOf,
  makeXml,
  parseXml,
  type XmlElement,
  type XmlTree,
} from './elements.js';
export { Virsh, type VirshDomain } from './virsh.js';
export { VirshAgent } from './virsh-agent.js';
