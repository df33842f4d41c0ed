"""Paths as container runtimes and systemd make them."""

from __future__ import annotations

import pytest

from services.capture.control_groups import Owner, owner_of

UID = "3f0e2a34-6f0b-4f6e-9d3c-0a1b2c3d4e5f"
UNDERSCORES = UID.replace("-", "_")
HASH = "0123456789abcdef0123456789abcdef"
ID = "c0ffee" * 10 + "beef"
SHORT = ID[:12]
IN_POD = Owner(SHORT, ID, UID)
ALONE = Owner(SHORT, ID)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        # systemd: containerd, CRI-O, Docker behind cri-dockerd; the quality of service decides about the slices
        (f"kubepods.slice/kubepods-pod{UNDERSCORES}.slice/cri-containerd-{ID}.scope", IN_POD),
        (
            f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORES}.slice/crio-{ID}.scope",
            IN_POD,
        ),
        (
            f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORES}.slice/docker-{ID}.scope",
            IN_POD,
        ),
        # cgroupfs, also below a root of the kubelet's
        (f"kubepods/burstable/pod{UID}/{ID}", IN_POD),
        (f"kubepods/pod{UID}/crio-{ID}", IN_POD),
        (f"node-1/kubepods/besteffort/pod{HASH}/{ID}", Owner(SHORT, ID, HASH)),
        # systemd in the container, and a kind node's pods inside of one
        (f"kubepods/pod{UID}/{ID}/init.scope", IN_POD),
        (f"system.slice/docker-{ID}.scope/kubelet.slice/kubepods/pod{UID}/{'a' * 64}", ALONE),
        # the pod's own
        (f"kubepods/burstable/pod{UID}", Owner(f"pod-{UID}", pod_uid=UID)),
        # without Kubernetes
        (f"system.slice/docker-{ID}.scope", ALONE),
        (f"docker/{ID}", ALONE),
        (f"machine.slice/libpod-{ID}.scope/container", ALONE),
        (f"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", ALONE),
        # units
        ("system.slice/ssh.service", Owner("ssh.service")),
        ("system.slice/containerd.service", Owner("containerd.service")),
        ("user.slice/user-1000.slice/session-3.scope", Owner("session-3.scope")),
        ("user.slice/user-1000.slice/user@1000.service/app.slice/firefox.service", Owner("firefox.service")),
        ("init.scope", Owner("init.scope")),
        ("batch/job-7", Owner("batch")),
        ("", Owner("kernel-and-root-group")),
    ],
)
def test_a_path_tells_whose_the_group_is(path: str, owner: Owner) -> None:
    assert owner_of([part for part in path.split("/") if part]) == owner
