/** The cookie of a request, which comes back with its reply. It stands at the same place in all of their headers. */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** A cookie that is read into. */
export type CookieFields = { -readonly [Key in keyof Cookie]: Cookie[Key] };

const COOKIE_AT = 8;

/** Says the cookie in the header at `at`, of a request or a reply of any form. */
export function writeCookie(view: DataView, at: number, cookie: Cookie): void {
  view.setUint32(at + COOKIE_AT, cookie.cookieHigh);
  view.setUint32(at + COOKIE_AT + 4, cookie.cookieLow);
}

/** Fills `into` with the cookie of the header at `at`, of a request or a reply of any form. */
export function readCookie(view: DataView, at: number, into: CookieFields): void {
  into.cookieHigh = view.getUint32(at + COOKIE_AT);
  into.cookieLow = view.getUint32(at + COOKIE_AT + 4);
}
