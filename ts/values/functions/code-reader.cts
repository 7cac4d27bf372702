import type { ByteReader } from '../byte-reader.cjs';
import { MalformedHeader } from '../refusal.cjs';
import type { Code } from './compile.cjs';
import { Form } from './syntax.cjs';
import { CODE_STRICT, VARIABLE_CELL, VARIABLE_EAGER } from './wire.cjs';

/** Reads strings and code, as {@link CodeTable} wrote them. */
export function readCodes(reader: ByteReader): { strings: string[]; codes: Code[] } {
  const strings: string[] = [];
  for (let left = reader.count(2); left > 0; left--) strings.push(reader.text());
  const codes: Code[] = [];
  for (let left = reader.count(11); left > 0; left--) codes.push(readCode(reader));
  return { strings, codes };
}

function readCode(reader: ByteReader): Code {
  const flags = reader.byte();
  const form: Form = reader.byte();
  if (Form[form] === undefined) throw new MalformedHeader('a form of code is unknown');
  const memberKind = reader.text();
  const memberKey = reader.text();
  const prefix = reader.text();
  const url = reader.text();
  const line = reader.varint();
  const column = reader.zigzag();
  const variables: { name: string; isCell: boolean; isEager: boolean }[] = [];
  for (let left = reader.count(3); left > 0; left--) {
    const kind = reader.byte();
    const name = reader.text();
    variables.push({ name, isCell: (kind & VARIABLE_CELL) !== 0, isEager: (kind & VARIABLE_EAGER) !== 0 });
  }
  const isStrict = (flags & CODE_STRICT) !== 0;
  return { flags, form, memberKind, memberKey, prefix, url, line, column, variables, text: reader.text(), isStrict };
}
