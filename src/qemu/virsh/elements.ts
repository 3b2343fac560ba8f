/** XML as libvirt speaks it: elements with attributes and children, without name spaces that matter. */
import {
  DOMImplementation,
  DOMParser,
  type Element as DomElement,
  XMLSerializer,
} from '@xmldom/xmldom';
import { LacunaError } from '../../errors/index.js';

/** An element of a document that was read. */
export type XmlElement = DomElement;

/** An element that is to be written: its name, its attributes, and its children or its text. */
export type XmlTree = readonly [
  name: string,
  attributes: Readonly<Record<string, string | undefined>>,
  ...content: (XmlTree | string)[],
];

/**
 * Reads a document.
 *
 * @param what is read, for messages
 * @throws LacunaError ERR_LIBVIRT
 */
export function parseXml(text: string, what: string): XmlElement {
  try {
    const parser = new DOMParser({
      onError: (_level, message) => {
        throw new Error(message);
      },
    });
    const root = parser.parseFromString(text, 'text/xml').documentElement;
    if (root === null) throw new Error('it is empty');
    return root;
  } catch (cause) {
    const why = (cause as Error).message;
    throw new LacunaError('ERR_LIBVIRT', `${what} cannot be read as XML: ${why}`, { cause });
  }
}

/** Writes a document. Attributes that are undefined are left out. */
export function makeXml([name, attributes, ...content]: XmlTree): string {
  const document = new DOMImplementation().createDocument(null, name);
  fill(document.documentElement!, attributes, content);
  return `${new XMLSerializer().serializeToString(document)}\n`;

  function fill(
    element: XmlElement,
    given: XmlTree[1],
    children: readonly (XmlTree | string)[],
  ): void {
    for (const [key, value] of Object.entries(given)) {
      if (value !== undefined) element.setAttribute(key, value);
    }
    for (const child of children) {
      if (typeof child === 'string') {
        element.appendChild(document.createTextNode(child));
        continue;
      }
      const made = document.createElement(child[0]);
      fill(made, child[1], child.slice(2) as (XmlTree | string)[]);
      element.appendChild(made);
    }
  }
}

/** The children of an element that have this name. */
export function childrenOf(element: XmlElement | undefined, name: string): XmlElement[] {
  const children = [...(element?.childNodes ?? [])] as XmlElement[];
  return children.filter(({ nodeType, nodeName }) => nodeType === 1 && nodeName === name);
}

/** The first element at a path of names below another one. */
export function childOf(element: XmlElement, ...path: readonly string[]): XmlElement | undefined {
  let found: XmlElement | undefined = element;
  for (const name of path) found = childrenOf(found, name)[0];
  return found;
}
