/** A man page of what the help of a command says, for man and mandoc. */
import type { CommandFacts } from '../../device/index.js';

/** The page of one command; names of others in it are those of their own pages. */
export function manPage(facts: CommandFacts, version: string): string {
  const name = pageOf(facts.path);
  return [
    `.TH ${quote(name.toUpperCase())} 1 "" ${quote(`lacuna ${version}`)} "Lacuna"`,
    // Names of options are not parted at their hyphens.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${plain(name)} \\- ${plain(facts.summary)}`,
    '.SH SYNOPSIS',
    `.B ${plain(facts.path)}`,
    plain(facts.usage),
    '.SH DESCRIPTION',
    paragraph(facts.description),
    ...argumentsOf(facts),
    ...optionsOf(facts),
    ...commandsOf(facts),
    ...notesOf(facts.notes),
    ...seeAlso(facts),
    '',
  ].join('\n');
}

/** `lacuna bitmap add` has the page lacuna-bitmap-add. */
function pageOf(path: string): string {
  return path.replaceAll(' ', '-');
}

function argumentsOf({ arguments: all }: CommandFacts): string[] {
  if (all.length === 0) return [];
  return ['.SH ARGUMENTS', ...all.flatMap(({ term, text }) => item(term, text))];
}

function optionsOf({ options }: CommandFacts): string[] {
  const lines = ['.SH OPTIONS'];
  const groups = [...new Set(options.map(({ group }) => group))];
  for (const group of groups) {
    if (groups.length > 1 && group !== 'Options:')
      lines.push(`.SS ${quote(group.replace(/:$/, ''))}`);
    for (const { term, text, group: own } of options) {
      if (own === group) lines.push(...item(term, text));
    }
  }
  return lines;
}

function commandsOf({ commands }: CommandFacts): string[] {
  if (commands.length === 0) return [];
  const items = commands.flatMap(({ path, summary }) =>
    item(path, `${summary}; see ${pageOf(path)}(1)`),
  );
  return ['.SH COMMANDS', ...items];
}

/** Paragraphs; one whose first line ends with a colon and whose others are indented is shown as it is. */
function notesOf(notes: string): string[] {
  if (notes === '') return [];
  let heading = '';
  const lines: string[] = [];
  for (const block of notes.split('\n\n')) {
    const wanted = block.startsWith('Examples:') ? '.SH EXAMPLES' : '.SH NOTES';
    if (wanted !== heading) lines.push(wanted);
    else lines.push('.PP');
    heading = wanted;
    lines.push(...blockOf(block.replace(/^Examples:\n/, '')));
  }
  return lines;
}

function blockOf(block: string): string[] {
  const lines = block.split('\n');
  const firstIndented = lines.findIndex((line) => line.startsWith('  '));
  if (firstIndented < 0) return [paragraph(block)];
  const before = lines.slice(0, firstIndented).join('\n');
  return [
    ...(before === '' ? [] : [paragraph(before), '.PP']),
    '.nf',
    '.RS 2',
    ...lines.slice(firstIndented).map((line) => plain(line.replace(/^ {2}/, ''))),
    '.RE',
    '.fi',
  ];
}

function seeAlso({ path }: CommandFacts): string[] {
  const parent = path.split(' ').slice(0, -1).join(' ');
  const others = ['qemu\\-img(1)', 'nbdcopy(1)', 'nbdinfo(1)'];
  const above = parent === '' ? [] : [`${plain(pageOf(parent))}(1)`];
  return ['.SH SEE ALSO', [...above, ...others].join(',\n')];
}

function item(term: string, text: string): string[] {
  return ['.TP', `.B ${plain(term)}`, ...(text === '' ? [] : [paragraph(text)])];
}

/** Lines of a source that people may read. */
const LINE = 78;

function paragraph(text: string): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.trim().split(/\s+/)) {
    if (line !== '' && plain(`${line} ${word}`).length > LINE) {
      lines.push(plain(line));
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, plain(line)].join('\n');
}

/** Text that roff shows as it is: hyphens stay those that a shell knows. */
function plain(text: string): string {
  const safe = text.replaceAll('\\', '\\e').replaceAll('-', '\\-');
  return /^[.']/.test(safe) ? `\\&${safe}` : safe;
}

function quote(text: string): string {
  return `"${plain(text).replaceAll('"', '\\(dq')}"`;
}
