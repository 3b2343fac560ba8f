/** Text of an image that is only shown, or compared with other texts. Broken UTF-8 becomes U+FFFD. */
export function readText(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

export function textBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
