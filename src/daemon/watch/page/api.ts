import { askToken } from './dialogs.js';
import type { DiskMap } from './types.js';

const KEY = 'lacuna-token';

/** Takes the token out of the address, where it would be seen and kept. */
export function takeToken(): void {
  const given = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (given === undefined) return;
  sessionStorage.setItem(KEY, decoded(given));
  history.replaceState(null, '', location.pathname);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function hasToken(): boolean {
  return sessionStorage.getItem(KEY) !== null;
}

/** Asks for the token. Whether there is one then. */
export async function enterToken(): Promise<boolean> {
  const token = await askToken();
  if (token !== undefined) sessionStorage.setItem(KEY, token);
  return token !== undefined;
}

/** Changes something, after it has asked for the token where there is none. Whether it was done. @throws Error with what the server says. */
export async function change(path: string, body: object): Promise<boolean> {
  if (!hasToken() && !(await enterToken())) return false;
  const response = await fetch(path, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${sessionStorage.getItem(KEY)}`,
    },
    body: JSON.stringify(body),
  });
  if (response.ok) return true;
  if (response.status === 401) sessionStorage.removeItem(KEY);
  throw new Error(await failureOf(response));
}

export async function diskMap(node: string, bitmap: string | undefined): Promise<DiskMap> {
  const query = new URLSearchParams({
    node,
    cells: '512',
    ...(bitmap !== undefined && { bitmap }),
  });
  const response = await fetch(`/map?${query}`);
  if (!response.ok) throw new Error(await failureOf(response));
  const answer = (await response.json()) as DiskMap | { error: { message: string } };
  if ('error' in answer) throw new Error(answer.error.message);
  return answer;
}

async function failureOf(response: Response): Promise<string> {
  const { error } = (await response.json().catch(() => ({}))) as { error?: { message: string } };
  return error?.message ?? `the server answered ${response.status}`;
}
