"""How often Python looks for unused cycles."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Let Python look for unused cycles seldom; what is there by now it never looks at.

    What is known of a large cluster is hundreds of thousands of objects, which live as long as the process. Looking at
    all of them takes a tenth of a second each time, and a second's news makes enough new ones to begin with that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
