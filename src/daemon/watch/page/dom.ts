type Attributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** The element with this id, which the page has. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): SVGElementTagNameMap[K] {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
  setAttributes(made, attributes);
  made.append(...children);
  return made;
}

/** Sets what differs: an attribute that is set anew makes the browser work, and a reader speak. */
export function setAttributes(of: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) {
      of.removeAttribute(name);
      continue;
    }
    const text = value === true ? '' : String(value);
    if (of.getAttribute(name) !== text) of.setAttribute(name, text);
  }
}

export function setText(of: Element, text: string): void {
  if (of.textContent !== text) of.textContent = text;
}

/** How the elements of a list are made and kept up to date. */
interface Keyed<Item, E extends Element> {
  key(item: Item): string;
  make(item: Item): E;
  update?(made: E, item: Item): void;
}

/** Makes the children of an element those of a list, and keeps those that are there: a focus stays where it is. */
export function keep<Item, E extends Element>(
  parent: Element,
  items: readonly Item[],
  { key, make, update }: Keyed<Item, E>,
): void {
  const there = new Map<string, E>();
  for (const child of parent.children)
    there.set((child as HTMLElement).dataset.key ?? '', child as E);
  let next: Element | null = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let child = there.get(name);
    there.delete(name);
    if (child === undefined) {
      child = make(item);
      (child as unknown as HTMLElement).dataset.key = name;
    }
    update?.(child, item);
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  for (const gone of there.values()) gone.remove();
}
