"""Names pods after their interfaces where no directory knows them."""

from __future__ import annotations

from typing import Final

from services.flows.scope import Place, Pod

NAMESPACE: Final = "local"


def pod_behind(place: Place, interface: str) -> Pod:
    """The pod that stands for whoever is behind an interface of the node at `place`."""
    return Pod(uid_behind(place.node, interface), NAMESPACE, interface, place)


def is_behind(uid: str, node: str, interface: str) -> bool:
    """Whether `uid` is that stand-in's, and so may turn out to be another pod's."""
    return uid == uid_behind(node, interface)


def uid_behind(node: str, interface: str) -> str:
    """The uid of the stand-in."""
    # No directory writes uids like this.
    return f"interface:{node}/{interface}"
