const SPACE = /[ \t\r\n]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /[A-Za-z_][\w-]*/y;
const WORDS = new Map<string, unknown>([
  ['true', true],
  ['false', false],
  ['null', null],
]);
/** What is longer than this is not shown in a message. */
const SHOWN = 40;

/**
 * Reads JSON (RFC 8259). Other than `JSON.parse` it refuses a name that is twice in one object, where that keeps the last
 * one in silence, and it says what is wrong in the words of QEMU. It is several times slower, and meant for commands.
 *
 * @throws SyntaxError
 */
export function parseJson(text: string): unknown {
  return new JsonText(text).whole();
}

class JsonText {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  whole(): unknown {
    const value = this.#value();
    this.#take(SPACE);
    if (this.#at < this.#text.length) throw this.#stray();
    return value;
  }

  #value(): unknown {
    this.#take(SPACE);
    const first = this.#text[this.#at];
    if (first === '{') return this.#object();
    if (first === '[') return this.#list();
    if (first === '"') return this.#string();
    const number = this.#take(NUMBER);
    if (number !== '') return Number(number);
    const word = this.#take(WORD);
    if (WORDS.has(word)) return WORDS.get(word);
    if (word !== '') throw new SyntaxError(`invalid keyword '${shorten(word)}'`);
    throw this.#unexpected('expecting value');
  }

  #object(): Record<string, unknown> {
    this.#at++;
    const object: Record<string, unknown> = {};
    if (this.#isNext('}')) return object;
    do {
      this.#take(SPACE);
      if (this.#text[this.#at] !== '"') {
        const word = this.#take(WORD);
        if (word !== '' && !WORDS.has(word)) {
          throw new SyntaxError(`invalid keyword '${shorten(word)}'`);
        }
        throw this.#unexpected('key is not a string in object');
      }
      const name = this.#string();
      if (Object.hasOwn(object, name)) throw new SyntaxError('duplicate key');
      if (!this.#isNext(':')) throw this.#unexpected('missing : in object pair');
      // An assignment would take "__proto__" for something else.
      const value = this.#value();
      Object.defineProperty(object, name, { value, ...PLAIN });
    } while (this.#isNext(','));
    if (!this.#isNext('}')) throw this.#unexpected('expected separator in dict');
    return object;
  }

  #list(): unknown[] {
    this.#at++;
    const list: unknown[] = [];
    if (this.#isNext(']')) return list;
    do list.push(this.#value());
    while (this.#isNext(','));
    if (!this.#isNext(']')) throw this.#unexpected('expected separator in list');
    return list;
  }

  #string(): string {
    const start = this.#at;
    // Not by an expression: those fail on texts of some megabytes.
    let end = start;
    do {
      end = this.#text.indexOf('"', end + 1);
      if (end < 0) throw new SyntaxError('premature EOI');
    } while (this.#isEscaped(end));
    this.#at = end + 1;
    try {
      return JSON.parse(this.#text.slice(start, this.#at)) as string;
    } catch {
      throw new SyntaxError('invalid escape sequence or control character in string');
    }
  }

  /** Whether an odd number of backslashes stands before a place. */
  #isEscaped(at: number): boolean {
    let first = at;
    while (this.#text[first - 1] === '\\') first--;
    return (at - first) % 2 === 1;
  }

  #isNext(mark: string): boolean {
    this.#take(SPACE);
    if (this.#text[this.#at] !== mark) return false;
    this.#at++;
    return true;
  }

  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? '';
    this.#at += found.length;
    return found;
  }

  #unexpected(what: string): SyntaxError {
    return new SyntaxError(this.#at < this.#text.length ? what : 'premature EOI');
  }

  #stray(): SyntaxError {
    return new SyntaxError(`stray '${this.#text[this.#at]}'`);
  }
}

const PLAIN = { writable: true, enumerable: true, configurable: true };

function shorten(word: string): string {
  return word.length > SHOWN ? `${word.slice(0, SHOWN)}...` : word;
}
