"""Makes a port of the host's loopback reachable on the loopback of a namespace."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.support.netns import Namespace


@contextlib.contextmanager
def relayed(namespace: Namespace, port: int) -> Iterator[None]:
    """Pass on connections to 127.0.0.1:`port` of the namespace while inside."""
    server = namespace.call(lambda: socket.create_server(("127.0.0.1", port)))
    taking = threading.Thread(target=_take, args=(server, port), daemon=True)
    taking.start()
    try:
        yield
    finally:
        # Closing alone wakes nobody who waits.
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        taking.join()


def _take(server: socket.socket, port: int) -> None:
    ends: list[socket.socket] = []
    threads: list[threading.Thread] = []
    with contextlib.suppress(OSError):
        while True:
            near, _ = server.accept()
            far = socket.create_connection(("127.0.0.1", port))
            ends += [near, far]
            for source, target in ((near, far), (far, near)):
                threads.append(threading.Thread(target=_copy, args=(source, target), daemon=True))
                threads[-1].start()
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
