/** The value of a column. Integers that a number does not hold exactly are bigints. */
export type Value = null | number | bigint | string | Uint8Array;

/** A row: its columns by name. */
export type Row = Record<string, Value>;

/** @internal */
export type Cell = null | number | string | { integer: string } | { real: string } | { blob: string };

/** @internal */
export function fromCell(cell: Cell): Value {
  if (cell === null || typeof cell !== 'object') return cell;
  if ('integer' in cell) return BigInt(cell.integer);
  if ('blob' in cell) return Buffer.from(cell.blob, 'hex');
  return { inf: Infinity, '-inf': -Infinity }[cell.real] ?? NaN;
}

/** @internal */
export function toCell(value: Value | boolean | undefined): Cell {
  switch (typeof value) {
    case 'undefined':
      return null;
    case 'boolean':
      return Number(value);
    case 'bigint':
      return { integer: value.toString() };
    case 'number':
      if (Number.isFinite(value)) return value;
      return { real: Number.isNaN(value) ? 'NaN' : value > 0 ? 'inf' : '-inf' };
    case 'string':
      return value;
    default:
      return value && { blob: Buffer.from(value).toString('hex') };
  }
}

/** @internal */
export function fromCells(cells: Record<string, Cell>): Row {
  return Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, fromCell(cell)]));
}

/** @internal */
export function toCells(row: Row): Record<string, Cell> {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, toCell(value)]));
}

/** @internal */
export function listFromCells(cells: Cell[]): Value[] {
  return cells.map(fromCell);
}
