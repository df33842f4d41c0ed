/** What is seen, as a file: JSON or CSV. */

export type Cell = string | number | null;

/** A table to write: its columns' names, and a value for each of them in every row. */
export interface Sheet {
  columns: readonly string[];
  rows: readonly (readonly Cell[])[];
}

/** A cell of CSV. Text that a spreadsheet would take for a formula is kept from being one. */
function cell(value: Cell): string {
  if (value === null || (typeof value === 'number' && Number.isNaN(value))) return '';
  if (typeof value === 'number') return String(value);
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** The sheet as CSV (RFC 4180). */
export function csv(sheet: Sheet): string {
  return [sheet.columns, ...sheet.rows].map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

/** The sheet as JSON: an object for each row; what is not known is null. */
export function json(sheet: Sheet): string {
  const known = (value: Cell | undefined): Cell =>
    typeof value === 'number' && Number.isNaN(value) ? null : (value ?? null);
  const objects = sheet.rows.map((row) =>
    Object.fromEntries(sheet.columns.map((column, at) => [column, known(row[at])])),
  );
  return `${JSON.stringify(objects, null, 1)}\n`;
}

/** Let the browser save a text. */
export function save(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = Object.assign(document.createElement('a'), { href: url, download: name });
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
