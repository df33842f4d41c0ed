import { expect, test } from 'vitest';
import { coverageHint, coverageSentence } from '../src/lib/words';

test('where less than all is seen, what helps is said', () => {
  for (const seen of ['full', 'both', '', null]) expect(coverageHint(seen)).toBe('');
  for (const half of ['egress-only', 'ingress-only', 'none']) {
    expect(coverageSentence(half)).not.toBe(half);
    expect(coverageHint(half)).toContain('--capture cgroup');
    expect(coverageHint(half)).toContain('NET_ADMIN');
  }
});
