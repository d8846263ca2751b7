"""Ports for servers under test."""

import random
import socket
from typing import Final

# Below those that Linux gives to outgoing connections (from 32768 on): none of them takes a port while its server is
# down.
_PORTS: Final = range(20_000, 32_000)


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    # not seeded: two runs of one seed may go on at the same time
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no port between {_PORTS.start} and {_PORTS.stop - 1} is free")
