/** A terminal, for tests of what people see: a real pseudo terminal of the kernel, and the lines that it would show. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Runs a program on a pseudo terminal, whose keys are standard input and whose picture is standard output. */
const RELAY = `
import fcntl, os, pty, struct, sys, termios
def size(fd):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 50, 100, 0, 0))
pid, master = pty.fork()
if pid == 0:
    size(0)
    os.execvp(sys.argv[1], sys.argv[1:])
import threading
def keys():
    while True:
        data = os.read(0, 1024)
        if not data: return
        os.write(master, data)
threading.Thread(target=keys, daemon=True).start()
while True:
    try: data = os.read(master, 65536)
    except OSError: break
    if not data: break
    os.write(1, data)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256)
`;

/** A program on a terminal of 100 columns. */
export class Terminal {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  #bytes = '';

  constructor(argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.#child = spawn('/usr/bin/python3', ['-c', RELAY, ...argv], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, LC_ALL: 'C.UTF-8', TERM: 'xterm', NO_COLOR: '1', ...env },
    });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#bytes += text;
    });
    this.#ended = new Promise((resolve) => this.#child.once('close', resolve));
  }

  /** Presses keys. */
  press(keys: string): void {
    this.#child.stdin?.write(keys);
  }

  /** All that was written, with its control sequences. */
  get bytes(): string {
    return this.#bytes;
  }

  /** The lines as they stand on the screen. */
  lines(): string[] {
    return linesOf(this.#bytes);
  }

  /** The program's process, which is the only child of the relay. */
  get pid(): number {
    const { pid } = this.#child;
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8'));
  }

  /** Waits until the screen shows what is looked for. */
  async shows(wanted: RegExp): Promise<void> {
    const deadline = Date.now() + 300_000;
    while (!wanted.test(this.lines().join('\n'))) {
      if (Date.now() > deadline) throw new Error(`no ${wanted} in\n${this.lines().join('\n')}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The exit code of the program, when it has ended. */
  ended(): Promise<number | null> {
    return this.#ended;
  }

  /** Takes the terminal away from what may still run on it. */
  close(): void {
    this.#child.kill('SIGKILL');
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const SEQUENCE = /\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07]*\x07|[\s\S]/g;

/** What a terminal makes of bytes. It knows what bars and shells use, and refuses the rest. */
export function linesOf(bytes: string): string[] {
  const lines: string[][] = [[]];
  let column = 0;
  for (const [text, parameters, letter] of bytes.matchAll(SEQUENCE)) {
    const line = lines[lines.length - 1];
    if (letter === 'K' && (parameters === '' || parameters === '0')) line.length = column;
    else if (letter !== undefined) refuse(text, letter);
    else if (text === '\r') column = 0;
    else if (text === '\b') column = Math.max(0, column - 1);
    else if (text === '\n') lines.push(Array<string>(column).fill(' '));
    else if (text.length > 1 || text === '\x07') continue;
    else if (text < ' ')
      throw new Error(`a terminal of tests does not know ${JSON.stringify(text)}`);
    else {
      while (line.length < column) line.push(' ');
      line[column++] = text;
    }
  }
  return lines.map((line) => line.join('').trimEnd());
}

/** Colours, and modes of keys, change no text. */
function refuse(text: string, letter: string): void {
  if (letter === 'm' || text === '\x1b[?2004h' || text === '\x1b[?2004l') return;
  throw new Error(`a terminal of tests does not know ${JSON.stringify(text)}`);
}
