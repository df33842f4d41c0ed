"""What the images are called."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

import services
from services.runtime.errors import UsageError

SERVICES: Final = ("capture", "aggregator", "api", "redis")
"""One image each; the store has one of its own so that all of them share one prefix."""
DEFAULT_PREFIX: Final = files(__package__).joinpath("prefix").read_text().strip()
"""What stands in the file `prefix`: a release writes its own into it."""
_PREFIX: Final = re.compile(r"[a-z0-9][a-z0-9.-]*(:\d{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def checked(prefix: str) -> str:
    """The prefix without a slash at its end; raises UsageError where no image's name can begin so."""
    stripped = prefix.rstrip("/")
    if not _PREFIX.fullmatch(stripped):
        raise UsageError(
            f"--image-prefix {prefix!r} cannot begin an image's name: it is HOST[:PORT]/PATH or PATH, in small letters"
        )
    return stripped


def image(prefix: str, service: str) -> str:
    """The full name of a service's image; its version is the package's."""
    return f"{prefix}/{service}:{services.__version__}"


def images(prefix: str) -> dict[str, str]:
    """The full name of each service's image."""
    return {service: image(prefix, service) for service in SERVICES}
