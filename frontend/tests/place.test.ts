import { expect, test } from 'vitest';
import { placeOf, queryOf, START, type Place } from '../src/lib/address-bar';

test('the start has an empty query', () => {
  expect(queryOf(START)).toBe('');
  expect(placeOf('')).toEqual(START);
});

test.each<Partial<Place>>([
  { view: 'map', by: 'zone', as: 'matrix', now: true },
  { filter: 'ns:shop -label:app=web 10.0.0.0/8' },
  { sort: { by: 'internet', down: true } },
  { sort: { by: 'rate', down: false } },
  { sort: { by: 'name', down: false } },
  { sort: { by: 'name', down: true } },
  { pod: 'shop/web-1', range: [1_790_000_000, 1_790_000_060] },
  { view: 'external', unknown: true, order: 'first' },
  { filter: '<b>&"=#+%' },
])('%o survives the address bar', (change) => {
  const place = { ...START, ...change };
  expect(placeOf(queryOf(place))).toEqual(place);
});

test.each(['?view=nowhere', '?sort=colour', '?range=5-1', '?range=x-y', '?by=planet', '?dir='])(
  'what makes no sense is left out: %s',
  (query) => {
    expect(placeOf(query)).toEqual(START);
  },
);

test('it stays readable', () => {
  expect(queryOf({ ...START, filter: 'ns:shop label:app=web', pod: 'shop/web' })).toBe(
    '?q=ns:shop+label:app=web&pod=shop/web',
  );
});
