import { byId, setText } from './dom.js';

/** What is asked before something that cannot be undone. */
export interface Question {
  readonly title: string;
  readonly text: string;
  /** What the button says that does it. */
  readonly yes: string;
}

/** Asks, and resolves to whether it is to be done. The button that does nothing has the focus. */
export async function confirmed({ title, text, yes }: Question): Promise<boolean> {
  setText(byId('question-title'), title);
  setText(byId('question-text'), text);
  setText(byId('question-yes'), yes);
  return (await shown(byId<HTMLDialogElement>('question'))) === 'yes';
}

/** Resolves to what was entered; undefined where nothing was. */
export async function askToken(): Promise<string | undefined> {
  const input = byId<HTMLInputElement>('token-value');
  const dialog = byId<HTMLDialogElement>('token-dialog');
  byId('token-no').onclick = () => dialog.close();
  input.value = '';
  const answer = await shown(dialog);
  const token = input.value.trim();
  input.value = '';
  return answer === 'yes' && token !== '' ? token : undefined;
}

/** Resolves to the button that has closed it; Escape is none. */
function shown(dialog: HTMLDialogElement): Promise<string> {
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue), { once: true });
  });
}
