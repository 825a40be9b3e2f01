"""The server behind a fault server: passes requests on to it over pooled connections, and its replies back.

Pooled, because a connection for each request would use up the machine's ports in a load test within a minute.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfkit.testing._fault_steps import Cut, refusal
from perfkit.testing._http1 import read_reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from perfkit.testing._http1 import Reply, Request

__all__ = ["Upstream"]


@dataclass(slots=True)
class _Link:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False
    reusable: bool = False  # the last reply was read to its end and did not ask to close


class Upstream:
    """One upstream, by its address ("http://127.0.0.1:8080")."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
        self._address = host, int(port or 80)
        self._idle: list[_Link] = []

    async def forward(self, request: Request, at_end: Callable[..., object]) -> Reply:
        """Send `request` on and return the reply, whose body is read as it is passed back.

        Args:
            request: what to send.
            at_end: registers a callback (and its arguments) for the end of the exchange, however it ends.

        Raises:
            Cut: the upstream ended the connection instead of replying.
        """
        try:
            link = await self._link()
        except OSError:
            return refusal(request, 502)
        at_end(self._release, link)
        try:
            link.writer.write(request.head() + request.body)
            reply = await read_reply(link.reader, request.method)
        except (OSError, asyncio.IncompleteReadError) as error:
            if link.used:  # it was idle too long for the upstream: the next one, in the end a new one, will do
                return await self.forward(request, at_end)
            raise Cut("fin") from error
        reply.body = _passed(reply.body, link, reusable=not (reply.endless or reply.closing))
        return reply

    async def _link(self) -> _Link:
        while self._idle:
            link = self._idle.pop()
            if not link.reader.at_eof():
                return link
            link.writer.close()
        return _Link(*await asyncio.open_connection(*self._address))

    def _release(self, link: _Link) -> None:
        if not link.reusable:
            link.writer.close()
            return
        link.used, link.reusable = True, False
        self._idle.append(link)


async def _passed(body: AsyncIterator[bytes], link: _Link, *, reusable: bool) -> AsyncIterator[bytes]:
    try:
        async for piece in body:
            yield piece
    except (OSError, asyncio.IncompleteReadError) as error:
        raise Cut("fin") from error
    link.reusable = reusable
