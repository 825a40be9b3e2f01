"""Cookies for clients that call the same few addresses again and again.

Working out the Cookie field of a request takes the standard library a tenth of a millisecond, each time anew, as soon
as there is one cookie; and those in front of providers set one with their first reply.
"""

from __future__ import annotations

import math
import time
from http.cookiejar import Cookie, CookieJar
from typing import Any

__all__ = ["RememberingJar"]

_MOST = 256  # addresses


class RememberingJar(CookieJar):
    """A cookie jar that keeps the Cookie field of an address until a cookie changes or one expires."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, tuple[str | None, float]] = {}  # by address, with the epoch second it ends

    def set_cookie(self, cookie: Cookie) -> None:
        """Add or replace a cookie."""
        super().set_cookie(cookie)
        self._fields = {}

    def clear(self, *which: Any, **more: Any) -> None:
        """Forget all cookies, or those of a domain, path and name."""
        super().clear(*which, **more)
        self._fields = {}

    def add_cookie_header(self, request: Any) -> None:
        """Put the Cookie field into `request`, unless it has one."""
        if request.has_header("Cookie"):
            return
        address, fields = request.full_url.partition("?")[0], self._fields
        field, ends = fields.get(address, (None, -math.inf))
        if time.time() < ends:
            if field is not None:
                request.add_unredirected_header("Cookie", field)
            return
        super().add_cookie_header(request)
        if len(fields) < _MOST:  # of the cookies there were before: a change meanwhile began another table
            fields[address] = request.get_header("Cookie"), self._soonest_end()

    def _soonest_end(self) -> float:
        return min((cookie.expires for cookie in list(self) if cookie.expires is not None), default=math.inf)
