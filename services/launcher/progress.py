"""Waits until a session's pods work, says how far they are, and why they do not come, in Kubernetes' own words."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.launcher.manifests import COMPONENT_LABEL
from services.launcher.refusal import advice, asking
from services.launcher.teardown import Found
from services.runtime.errors import PodloxxError
from services.runtime.kubernetes_api import ApiError, KubernetesApi

_POLL_S: Final = 0.25
_LONGEST_S: Final = 180.0
"""Pulling the images over a slow line."""
_ENOUGH_S: Final = 45.0
"""How long agents that do not come are waited for where others work."""
_SURE_S: Final = 6.0
"""A pull or a start that failed is tried again by the kubelet: only what fails for longer is given up."""
_TAIL: Final = 5
_LOOK: Final = "let it stay with --keep, and see `podloxx-launch logs` and `kubectl describe pods` of its namespace"
"""What to do about what nobody knows."""
_NO_IMAGE: Final = ("ErrImageNeverPull", "InvalidImageName", "ErrImagePull", "ImagePullBackOff", "ImageInspectError")
_AT_ONCE: Final = ("ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff")
_BROKEN: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a pod does not come; `grave` where waiting is of no use."""

    what: str
    step: str = ""
    """What to do about it, where that is known."""
    grave: bool = False

    @property
    def sentence(self) -> str:
        """Both."""
        return f"{self.what}. Next: {self.step}" if self.step else self.what


class Interrupted(Exception):  # noqa: N818  # no error: the user wants the end
    """The end was requested while a session came up."""


@dataclass(slots=True)
class Progress:
    """What is told while a session comes up: `say` gets lines that stay, `show` a line that is replaced.

    Once `end_requested` is set no further request is made; one that is under way is waited for, so that it is known
    what was created.
    """

    say: Say
    show: Say
    end_requested: asyncio.Event = field(default_factory=asyncio.Event)
    interval_s: float = _POLL_S
    longest_s: float = _LONGEST_S
    enough_s: float = _ENOUGH_S
    _steps: int = field(default=0)

    def check(self) -> None:
        """Raise Interrupted where the end was requested."""
        if self.end_requested.is_set():
            raise Interrupted

    async def pause(self) -> None:
        """Wait until it is time to look again; raises Interrupted as soon as the end is requested."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.end_requested.wait(), self.interval_s)
        self.check()

    def step(self, what: str) -> None:
        """The next step begins."""
        self._steps += 1
        self.show(f"[{self._steps}/3] {what}")

    def tell(self, text: str) -> None:
        """How far the step is."""
        self.show(f"[{self._steps}/3] {text}")


async def settled(api: KubernetesApi, session: Found, components: Sequence[str], progress: Progress) -> None:
    """Wait until the pods of all `components` work; agents that do not come on some nodes are told, and left out.

    Raises PodloxxError with the cause, and Interrupted.
    """
    started = time.monotonic()
    since: dict[str, float] = {}
    while True:
        with asking("it cannot be seen how far the pods are", api.server):
            look = await _look(api, session, components)
        waited = time.monotonic() - started
        if look.complete:
            return
        for what in set(since) - set(look.problems):
            del since[what]
        for what, problem in look.problems.items():
            first = since.setdefault(what, waited)
            if (problem.grave or waited - first >= _SURE_S) and not look.others_work:
                step = f". Next: {problem.step or _LOOK}"
                raise PodloxxError(f"{problem.what}{step}{await _last_words(api, session, what)}")
        progress.tell(look.summary)
        if look.others_work and waited >= progress.enough_s:
            for node in look.late:
                progress.say(f"no agent on {node}: its traffic is not seen")
            return
        if waited >= progress.longest_s:
            why = "; ".join(problem.what for problem in look.problems.values()) or look.summary
            steps = "; ".join(dict.fromkeys(problem.step or _LOOK for problem in look.problems.values())) or _LOOK
            raise PodloxxError(f"not ready within {progress.longest_s:.0f} s: {why}. Next: {steps}")
        await progress.pause()


@dataclass(slots=True)
class _Look:
    """What is there of some components at a moment."""

    complete: bool = False
    summary: str = ""
    problems: dict[str, Problem] = field(default_factory=dict)
    """By the pod's name, or by what is to make pods."""
    others_work: bool = False
    """Everything is there but agents on some nodes."""
    late: list[str] = field(default_factory=list)


async def _look(api: KubernetesApi, session: Found, components: Sequence[str]) -> _Look:
    base = f"/api/v1/namespaces/{session.namespace}"
    query = {"labelSelector": f"{COMPONENT_LABEL} in ({','.join(components)})"}
    pods = [
        one for one in (await api.get(f"{base}/pods", query))["items"] if "deletionTimestamp" not in one["metadata"]
    ]
    wanted = dict.fromkeys(components, 1)
    if "agent" in wanted:
        status = (await api.get(f"/apis/apps/v1/namespaces/{session.namespace}/daemonsets/agent")).get("status", {})
        # Before a controller has looked nothing is wanted yet.
        wanted["agent"] = status.get("desiredNumberScheduled", 0) if status.get("observedGeneration") else -1
    ready = {name: [one for one in pods if _component(one) == name and _works(one)] for name in components}
    look = _Look(summary=_summary(wanted, ready))
    look.complete = all(len(ready[name]) >= wanted[name] >= 0 for name in components)
    if look.complete:
        if wanted.get("agent") == 0:
            look.complete = False
            look.problems["agent"] = Problem(
                "no node may run an agent", "check --node-selector and `kubectl get nodes`"
            )
        return look
    for one in pods:
        if (problem := problem_of(one)) is not None and not _works(one):
            look.problems[one["metadata"]["name"]] = problem
    if len(pods) < sum(count for count in wanted.values() if count > 0):
        look.problems |= _not_made((await api.get(f"{base}/events"))["items"], components)
    others = all(len(ready[name]) >= wanted[name] for name in components if name != "agent")
    look.others_work = others and bool(ready.get("agent"))
    if look.others_work:
        waiting = [one for one in pods if _component(one) == "agent" and not _works(one)]
        look.late = [_place(one) + (f" ({found.sentence})" if (found := problem_of(one)) else "") for one in waiting]
    return look


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("labels", {}).get(COMPONENT_LABEL, ""))


def _place(pod: Mapping[str, Any]) -> str:
    if name := pod["spec"].get("nodeName"):
        return f"node {name}"
    # Pods of DaemonSets name their node in what they ask the scheduler for.
    required = (
        pod["spec"]
        .get("affinity", {})
        .get("nodeAffinity", {})
        .get("requiredDuringSchedulingIgnoredDuringExecution", {})
    )
    fields = [field for term in required.get("nodeSelectorTerms", []) for field in term.get("matchFields", [])]
    names = [value for field in fields if field.get("key") == "metadata.name" for value in field.get("values", [])]
    return f"node {names[0]}" if names else f"the node of {pod['metadata']['name']}"


def _works(pod: Mapping[str, Any]) -> bool:
    """Ready; or, where it is to end, ended well."""
    status = pod.get("status", {})
    if status.get("phase") == "Succeeded":
        return True
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))


def _summary(wanted: Mapping[str, int], ready: Mapping[str, Sequence[Any]]) -> str:
    return ", ".join(
        f"{'agents' if name == 'agent' else name} {len(ready[name])} of {count if count >= 0 else '?'}"
        for name, count in wanted.items()
    )


def problem_of(pod: Mapping[str, Any]) -> Problem | None:
    """Why a pod does not come, in its own status' words."""
    status = pod.get("status", {})
    for one in status.get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), " ".join(waiting.get("message", "").split())
        if reason in _NO_IMAGE:
            return Problem(
                f"{_place(pod)} does not get the image {one['image']}: {message or reason}",
                "bring it there with `podloxx-launch images load`, or name a registry that has it with --image-prefix",
                grave=reason in _AT_ONCE,
            )
        if reason in _BROKEN:
            ended = one.get("lastState", {}).get("terminated", {})
            code = f" (exit code {ended['exitCode']}, {ended.get('reason', '')})" if "exitCode" in ended else ""
            return Problem(f"{pod['metadata']['name']} on {_place(pod)} does not start: {message or reason}{code}")
    if status.get("phase") == "Failed":
        return Problem(
            f"{pod['metadata']['name']} on {_place(pod)} failed: {status.get('message') or status.get('reason')}",
            grave=True,
        )
    for one in status.get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            message = " ".join(one.get("message", "").split()).rstrip(".")
            return Problem(
                f"the pod {pod['metadata']['name']} gets no node: {message}",
                "give it one that fits (`kubectl describe nodes` shows labels, taints and what is left), or choose among them with "
                "--node-selector",
            )
    return None


def _not_made(events: Iterable[Mapping[str, Any]], components: Sequence[str]) -> dict[str, Problem]:
    """Why pods are not even made: a quota, an admission, a security context constraint."""
    found = {}
    for one in events:
        name = one["involvedObject"].get("name", "")
        if one.get("reason") == "FailedCreate" and name.split("-")[0] in components:
            message = " ".join(one.get("message", "").split())
            found[f"pods of {name}"] = Problem(f"pods of {name} are not let in: {message}", advice(message), grave=True)
    return found


async def _last_words(api: KubernetesApi, session: Found, pod: str) -> str:
    """The end of what a pod said before it ended; empty where it said nothing."""
    path = f"/api/v1/namespaces/{session.namespace}/pods/{pod}/log"
    for previous in ("true", "false"):
        try:
            async with api.stream(path, {"tailLines": str(_TAIL), "previous": previous}, pause_s=5.0) as content:
                text = (await content.read()).decode(errors="replace").strip()
        except (ApiError, OSError, TimeoutError):
            continue
        if text:
            return "; the last that it said:" + "".join(f"\n  {line}" for line in text.splitlines())
    return ""
