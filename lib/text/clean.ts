import { decodeHTML } from 'entities';

/** Digraphs, ligatures and full-width forms, which fall apart into plain letters. */
const compatible = /[\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\u3000\ufb00-\ufb06\uff01-\uffef]/g;
const invisible = /(?![\t\n\f\r\u0085])\p{Cc}|[\u206a-\u206f\ufeff\ufff9-\ufffc]/gu;

/**
 * A text as CLIP's tokenizer cleans it before it splits it: HTML entities decoded twice, curly quotes straightened, ligatures
 * and full-width letters replaced, control characters dropped, in Unicode's composed form, white space collapsed, in lower
 * case. Of what ftfy does besides, text that was decoded by a wrong encoding stays as it is.
 */
export function cleanText(text: string): string {
  const plain = text
    .replace(compatible, (character) => character.normalize('NFKC'))
    .replace(/[\u02bc\u2018-\u201b]/g, "'")
    .replace(/[\u201c-\u201f]/g, '"')
    .replace(invisible, '')
    .normalize('NFC');
  return decodeHTML(decodeHTML(plain))
    .replace(/[\s\u0085]+/g, ' ')
    .trim()
    .toLowerCase();
}
