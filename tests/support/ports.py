"""Ports of this machine that stay free until a test takes them."""

import secrets
import socket

# Below those that Linux (from 32768), macOS and Windows (from 49152) deal out by themselves: one
# of those may be another connection's by the time a test listens there, or be connected to itself.
_BY_NAME_ONLY = range(10_000, 32_000)


def free_port(neighbours: int = 0) -> int:
    """Return a port of 127.0.0.1 that is free, as are the next `neighbours`."""
    while True:
        port = secrets.choice(_BY_NAME_ONLY)
        if all(_free(port + more) for more in range(neighbours + 1)):
            return port


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
