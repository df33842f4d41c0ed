import { expect, test } from 'vitest';
import { csv, json } from '../src/lib/download';

test.each(['=HYPERLINK("http://evil.example")', '+1', '-1', '@SUM(A1)', '\t=1', '\r=1'])(
  'the name %j is no formula to a spreadsheet',
  (name) => {
    const [, cell] = csv({ columns: ['pod'], rows: [[name]] }).split(/(?<=pod\r\n)/);
    expect(cell?.replace(/^"/, '').startsWith("'")).toBe(true);
  },
);

test('cells hold what tells them apart', () => {
  const sheet = { columns: ['pod', 'bytes'], rows: [['a,"b"\n', 1] as const, ['c', null] as const] };
  expect(csv(sheet)).toBe('pod,bytes\r\n"a,""b""\n",1\r\nc,\r\n');
  expect(JSON.parse(json(sheet))).toEqual([
    { pod: 'a,"b"\n', bytes: 1 },
    { pod: 'c', bytes: null },
  ]);
});
