"""A network with a round trip, for benchmarks on one machine: two namespaces, and packets that come late.

netem is not in every kernel, and a proxy would answer the handshake of TCP itself; here the packets of two tun devices
are read, held and written, so that connecting, slow start and black holes are the kernel's own. It needs root and
/dev/net/tun.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CLIENT", "SERVER", "Distance", "distance", "possible"]

CLIENT, SERVER = "10.77.0.2", "10.77.0.1"
_TUNSETIFF, _TUN_WITHOUT_HEADER, _CLONE_NEWNET = 0x400454CA, 0x1001, 0x40000000


def possible() -> bool:
    """Return whether this machine lets us."""
    return (
        os.geteuid() == 0
        and Path("/dev/net/tun").exists()
        and any((Path(place) / "ip").exists() for place in os.environ.get("PATH", "").split(":"))
    )


class Distance:
    """A running network.

    Attributes:
        inside: what a command is prefixed with to run at the client's end.
        far: the same for the server's end.
    """

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self.inside = ["ip", "netns", "exec", f"{name}-c"]
        self.far = ["ip", "netns", "exec", f"{name}-s"]


@contextmanager
def distance(one_way: float, flag: str) -> Iterator[Distance]:
    """Make a network of `one_way` seconds each way; while the file `flag` exists, all packets are lost."""
    name = f"perfkit-{os.getpid()}"
    command = [sys.executable, __file__, str(one_way), name, flag]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", "the network could not be made"
            yield Distance(process, name)
        finally:
            process.terminate()
            process.wait(5)
            for end in "cs":
                subprocess.run(["ip", "netns", "del", f"{name}-{end}"], check=False)


def _device(name: str, address: str, peer: str) -> int:
    """Make a namespace with one tun device in it; return the device's descriptor."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    namespace = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", b"t0", _TUN_WITHOUT_HEADER))
    for line in ("link set lo up", f"addr add {address} peer {peer} dev t0", "link set t0 txqueuelen 5000 mtu 1500 up"):
        subprocess.run(["ip", *line.split()], check=True)
    return device


class _Carrier:
    def __init__(self, devices: tuple[int, int], one_way: float, flag: Path) -> None:
        near, far = devices
        self._other = {near: far, far: near}
        self._held = {device: collections.deque[tuple[float, bytes]]() for device in devices}
        self._one_way = one_way
        self._flag = flag
        self._poll = select.epoll()
        for device in devices:
            self._poll.register(device, select.EPOLLIN)

    def run(self) -> None:
        while True:
            due = min((packets[0][0] for packets in self._held.values() if packets), default=None)
            for device, _ in self._poll.poll(None if due is None else max(0.0, due - time.monotonic())):
                with contextlib.suppress(BlockingIOError):
                    self._take(device)
            for device, packets in self._held.items():
                self._deliver(device, packets)

    def _take(self, device: int) -> None:
        while True:
            packet = os.read(device, 65536)
            if not self._flag.exists():
                self._held[self._other[device]].append((time.monotonic() + self._one_way, packet))

    def _deliver(self, device: int, packets: collections.deque[tuple[float, bytes]]) -> None:
        while packets and packets[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(device, packets.popleft()[1])


if __name__ == "__main__":
    made = _device(f"{sys.argv[2]}-c", CLIENT, SERVER), _device(f"{sys.argv[2]}-s", SERVER, CLIENT)
    print("ready", flush=True)
    _Carrier(made, float(sys.argv[1]), Path(sys.argv[3])).run()
