"""Money that the calls made for one request of the application share, however many they are and in whatever threads.

A wallet lives as long as its request and is known to nobody else, so there is nothing to share between processes and
nothing to expire. As with budgets, what a call may cost is held before it and settled after it.
"""

from __future__ import annotations

import re
import secrets
import threading
from datetime import UTC
from typing import TYPE_CHECKING, Final

from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.tokens.rules import exceeded
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perfkit.tokens.budget import Hold

__all__ = ["Taken", "Till", "Wallet"]

ID: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)  # what a request may be called in errors and logs


class Wallet:
    """What the calls of one request may spend together; its Till guards what changes.

    Args:
        limit: US dollars.
        request: the id of the request, or what returns it; None, or what is no plain id, gets a random one.

    Attributes:
        limit: nano-dollars, as `spent`.
        taken: what is held for calls under way.
    """

    __slots__ = ("_request", "limit", "spent", "taken")

    def __init__(self, limit: float, request: str | Callable[[], str | None] | None = None) -> None:
        self.limit = to_nano(finite("budget", limit, least=0))
        self._request = request
        self.spent = 0
        self.taken: set[Taken] = set()

    @property
    def held(self) -> int:
        """Nano-dollars held for calls under way."""
        return sum(one.nano for one in self.taken)

    @property
    def to_come(self) -> int:
        """Nano-dollars of these that may come back while this thread waits: its own do not."""
        mine = threading.get_ident()
        return sum(one.nano for one in self.taken if one.thread != mine)

    @property
    def request(self) -> str:
        """The id of the request."""
        found = self._request() if callable(self._request) else self._request
        if found is None or ID.fullmatch(found) is None:
            found = secrets.token_hex(4)
        self._request = found
        return found


class Till:
    """Takes money from wallets, safely from many threads."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """Make the lock new."""
        self._lock = threading.Lock()  # guards what is spent and held of every wallet, and the end of every Taken

    def take(self, wallets: Sequence[Wallet], nano: int | None) -> Taken:
        """Hold `nano` nano-dollars in every wallet, or in none.

        Raises:
            BudgetExceededError: one has too little left, or `nano` is None, the cost being unknown.
        """
        with self._lock:
            short = next((one for one in wallets if nano is None or one.spent + one.held + nano > one.limit), None)
            if short is None:
                taken = Taken(self, wallets, nano or 0)
                for one in wallets:
                    one.taken.add(taken)
                return taken
            spent, held = short.spent + short.held, short.to_come
        key = ("request", short.request, "request")
        raise exceeded(key, short.limit, spent, nano, (None, UTC), held=held)

    def end(self, taken: Taken, cost: int) -> None:
        """Give back what was held and charge `cost` nano-dollars instead, once."""
        with self._lock:
            if taken.ended:
                return
            taken.ended = True
            for one in taken.wallets:
                one.taken.remove(taken)
                one.spent += cost


class Taken:
    """Money held in wallets for one attempt, and in the budgets it falls under.

    Attributes:
        amount: US dollars held.
    """

    __slots__ = ("_till", "amount", "ended", "hold", "nano", "thread", "wallets")

    def __init__(self, till: Till, wallets: Sequence[Wallet], nano: int) -> None:
        self._till, self.wallets, self.nano = till, wallets, nano
        self.hold: Hold | None = None
        self.thread = threading.get_ident()
        self.ended = False
        self.amount = from_nano(nano)

    def settle(self, cost: float | None) -> None:
        """Replace what is held by US dollars that the attempt cost; None, unknown, charges all of it."""
        self._till.end(self, self.nano if cost is None else to_nano(finite("cost", cost, least=0)))
        if self.hold is not None:
            self.hold.settle(cost)

    def release(self) -> None:
        """Give it back: the attempt did not happen."""
        self._till.end(self, 0)
        if self.hold is not None:
            self.hold.release()
