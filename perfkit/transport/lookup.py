"""Names to addresses within a time: the system's resolver knows no deadline and may take half a minute."""

from __future__ import annotations

import ipaddress
import socket
import threading
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["addresses"]


def addresses(host: str, port: int, seconds: float | None) -> list[Any]:
    """Return what `socket.getaddrinfo` finds for TCP.

    A name is looked up on a thread of its own, which is left behind if it does not answer; that costs a tenth of a
    millisecond for each new connection.

    Raises:
        TimeoutError: no answer within `seconds`.
        OSError: the name does not exist.
    """
    if seconds is None or _is_address(host):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    answers: SimpleQueue[list[Any] | Exception] = SimpleQueue()
    threading.Thread(target=_look_up, args=(host, port, answers), name="perfkit-lookup", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, seconds))
    except Empty:
        raise TimeoutError(f"the name {host} was not resolved within {seconds:.3g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _look_up(host: str, port: int, answers: SimpleQueue[list[Any] | Exception]) -> None:
    try:
        answers.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    except Exception as error:
        answers.put(error)
