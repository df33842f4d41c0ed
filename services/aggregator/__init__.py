"""Knows who is who: turns flow deltas into totals with a scope and a rule for every byte."""
