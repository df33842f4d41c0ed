/** What the filter says: `ns: node: label: owner: ip: port: scope:`, `-` leaves out, bare words are looked for anywhere. */

import { MIX, columnOf } from './columns';
import { inRange, rangeOf } from './address';
import { SCOPE_NAMES } from './live-message';
import type { Pod } from './rows';

export const FILTER_FIELDS = ['ns', 'node', 'label', 'owner', 'ip', 'port', 'scope'] as const;
type FilterField = (typeof FILTER_FIELDS)[number];

/** One word of the filter; `field` is empty for a bare word. */
export interface Term {
  field: FilterField | '';
  value: string;
  negated: boolean;
}

/** Whether a value is what a term asks for. */
type Test = (value: string) => boolean;

/** The words of a filter. A field that is not known is part of a bare word: IPv6 addresses have colons. */
export function parse(text: string): Term[] {
  const terms: Term[] = [];
  for (const word of text.toLowerCase().split(/\s+/)) {
    const negated = word.startsWith('-');
    const rest = negated ? word.slice(1) : word;
    const colon = rest.indexOf(':');
    const name = rest.slice(0, Math.max(0, colon));
    const field = FILTER_FIELDS.find((one) => one === name);
    const value = field ? rest.slice(colon + 1) : rest;
    // Half a term is being typed.
    if (value) terms.push({ field: field ?? '', value, negated });
  }
  return terms;
}

/** What a filter names like a field, though there is none of that name. Digits of addresses are none either. */
export function unknownFields(text: string): string[] {
  const named = text
    .toLowerCase()
    .split(/\s+/)
    .map((word) => /^-?([a-z]+):/.exec(word)?.[1] ?? '');
  const fields: readonly string[] = FILTER_FIELDS;
  return [...new Set(named.filter((name) => name && !fields.includes(name) && !/^[a-f]+$/.test(name)))];
}

/** The filter with a term put in, or taken out where it is there. */
export function toggled(text: string, term: string): string {
  const words = text.split(/\s+/).filter(Boolean);
  const kept = words.filter((word) => word.toLowerCase() !== term.toLowerCase());
  return (kept.length < words.length ? kept : [...words, term]).join(' ');
}

/** A test of text: the whole of it, with `*` for anything. */
function pattern(value: string): Test {
  if (!value.includes('*')) return (text) => text === value;
  const parts = value.split('*').map((part) => part.replace(/[.+?^${}()|[\]\\]/g, '\\$&'));
  const expression = new RegExp(`^${parts.join('.*')}$`);
  return (text) => expression.test(text);
}

/** What a pod is asked for a field; ports are told apart, since no message carries them. */
function valuesOf(pod: Pod, field: FilterField, ports: Ports): string[] {
  switch (field) {
    case 'ns':
      return [pod.ns.toLowerCase()];
    case 'node':
      return [pod.node.toLowerCase(), pod.zone.toLowerCase()];
    case 'owner':
      return [pod.owner.toLowerCase(), `${pod.ownerKind}/${pod.owner}`.toLowerCase()];
    case 'label':
      return pod.labels.flatMap((label) => [label.toLowerCase(), label.toLowerCase().split('=', 1)[0] ?? '']);
    case 'ip':
      return pod.ips;
    case 'port':
      return [...(ports.get(pod.key) ?? [])].map(String);
    case 'scope':
      return scopesOf(pod.scopes);
  }
}

/** Names of scopes, and of their columns, behind the bits of a row. */
export function scopesOf(bits: number): string[] {
  const names = SCOPE_NAMES.filter((_, at) => bits & (1 << at));
  return [...names, ...MIX.filter((column) => names.some((name) => columnOf(name) === column))];
}

/** Ports by pod: those that it serves and those that it calls. */
export type Ports = ReadonlyMap<string, ReadonlySet<number>>;
export const NO_PORTS: Ports = new Map();

function test(term: Term, known: (field: FilterField) => ReadonlySet<string>): Test {
  if (term.field === 'ip') {
    const range = rangeOf(term.value);
    if (range) return (text) => inRange(text, range);
  }
  const whole = pattern(term.value);
  if (term.field === '' || term.field === 'port' || term.value.includes('*')) return whole;
  // A value that nothing has is one that is being typed.
  for (const value of known(term.field)) if (whole(value)) return whole;
  return (text) => text.startsWith(term.value);
}

/**
 * A test of pods: terms of one field are alternatives, fields and bare words all have to fit, and what
 * begins with `-` must not. `pods` are all there are.
 */
export function matcher(terms: readonly Term[], pods: readonly (Pod | null)[], ports: Ports): (pod: Pod) => boolean {
  const values = new Map<FilterField, Set<string>>();
  const known = (field: FilterField): ReadonlySet<string> => {
    const before = values.get(field);
    if (before) return before;
    const found = new Set(pods.flatMap((pod) => (pod ? valuesOf(pod, field, ports) : [])));
    values.set(field, found);
    return found;
  };
  return combined(
    terms.map((term) => ({ ...term, test: test(term, known) })),
    (pod: Pod, field) => valuesOf(pod, field, ports),
    (pod) => pod.text,
  );
}

/** The same for anything else that has values of fields and a text; null where a field means nothing for it. */
export function matcherOf<T>(
  terms: readonly Term[],
  values: (one: T, field: FilterField) => string[] | null,
  text: (one: T) => string,
): (one: T) => boolean {
  const tests = terms.map((term) => ({ ...term, test: test(term, () => new Set()) }));
  return combined(tests, values, text);
}

function combined<T>(
  terms: readonly (Term & { test: Test })[],
  values: (one: T, field: FilterField) => string[] | null,
  text: (one: T) => string,
): (one: T) => boolean {
  if (terms.length === 0) return () => true;
  const has = (one: T, term: Term & { test: Test }): boolean | null =>
    term.field === '' ? text(one).includes(term.value) : (values(one, term.field)?.some(term.test) ?? null);
  const words = terms.filter((term) => !term.negated && term.field === '');
  const without = terms.filter((term) => term.negated);
  const alternatives = FILTER_FIELDS.map((field) => terms.filter((term) => !term.negated && term.field === field));
  const asked = alternatives.filter((group) => group.length > 0);
  return (one) =>
    words.every((term) => has(one, term)) &&
    asked.every((group) => group.some((term) => has(one, term) ?? true)) &&
    !without.some((term) => has(one, term));
}
