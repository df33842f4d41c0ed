"""`podloxx-launch`, also as `python -m services.launcher`."""

from __future__ import annotations

import sys


def main() -> int:
    """Carry out this process's command line."""
    try:
        # What this imports takes a moment, in which CTRL+C is pressed at times.
        from services.launcher import cli

        return cli.main(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
