"""`podloxx-launch`, also as `python -m services.launcher`."""

from __future__ import annotations

import sys

from services.launcher import cli


def main() -> int:
    """Carry out this process's command line."""
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
