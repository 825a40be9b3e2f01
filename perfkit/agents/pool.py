"""The pool of agents, `perfkit.agent_pool`: objects with state, lent to one caller at a time (RAAF guide 6.1).

Any object that is dear to make or not safe for threads can be lent: agents, SDK clients, parsers. Each registered type
has its own `Lender` with its own lock; here are the names, and what concerns all of them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from perfkit import _process
from perfkit._shared import Shared
from perfkit.agents.configured import Types, terms_of
from perfkit.agents.kind import AgentType, check_bounds
from perfkit.agents.leaks import WatchedLender
from perfkit.agents.lending import Lender, Loan
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perfkit._settings import AgentsSettings
    from perfkit.agents.configured import Source
    from perfkit.clock import Clock

__all__ = ["AgentPool"]

T = TypeVar("T")


class AgentPool(Shared):
    """Objects by type, made when needed, lent to one caller at a time, most recently used first.

    Who waits longest is served first, directly by who returns: with 64 threads on 8 objects the usual queues starve 56
    of them. A forked child starts with the same types and no objects; the parent's are dropped there, never closed.
    Settings are those of the table `[agents]`.

    Args:
        clock: time, for ages and waits; the waiting itself is real.
        **settings: `reap_interval`, seconds between closings of what is idle for too long (300), and
            `validate_after`, seconds after which an idle object is validated before it is lent (0.5).
    """

    _table = "agents"
    settings: AgentsSettings

    def __init__(self, *, clock: Clock | None = None, **settings: Any) -> None:
        self._clock = SYSTEM_CLOCK if clock is None else clock
        self._lenders: dict[str, Lender[Any]] = {}
        self._lock = threading.Lock()  # guards who replaces a lender in _lenders
        self._types = Types()
        self._opened: dict[str, Mapping[str, Any]] = {}  # types of the configuration in use, and their rows
        super().__init__(settings)
        self._types.configure(self.settings)

    def _apply(self) -> None:
        self._types.configure(self.settings)
        for agent_type, row in list(self._opened.items()):
            changed = self._types.row(agent_type)
            if changed is not None and changed != row:
                self._opened[agent_type] = changed
                self.register(agent_type, **terms_of(agent_type, changed))
        for lender in list(self._lenders.values()):
            lender.configure(self.settings)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        for lender in list(self._lenders.values()):
            lender.after_fork()

    def register(  # noqa: PLR0913 - each type has its own settings, all by keyword
        self,
        agent_type: str,
        factory: Callable[[], T],
        *,
        size: int = 3,
        min_idle: int = 0,
        max_waiting: int | None = None,
        reset: Callable[[T], Any] | None = None,
        validate: Callable[[T], Any] | None = None,
        close: Callable[[T], Any] | None = None,
        max_idle: float = 1800,
        max_lifetime: float | None = None,
        timeout: float = 30,
        nested: bool = False,
        leak_after: float | None = None,
    ) -> None:
        """Add a type, or replace it: objects of the former one are closed when they are idle. Makes nothing yet.

        Args:
            agent_type: its name.
            factory: makes an object; runs outside all locks, in several threads at once.
            size: most objects at a time.
            min_idle: idle objects that are kept, and made by the background job when there are fewer.
            max_waiting: callers that may wait; one more is refused at once. None for no bound.
            reset: called when an object comes back, so that no conversation is kept; if it fails, the object is closed.
            validate: says whether an object may be lent; asked when it was idle for long or its last block failed.
            close: called for every object that is given up, once.
            max_idle: seconds after which an idle object is closed.
            max_lifetime: seconds after which any object is replaced, less up to 5 %; None for no end.
            timeout: seconds to wait for an object.
            nested: a block inside another one of its thread gets the same object, instead of one more.
            leak_after: seconds after which a loan is reported once, with the stack of its borrower; None for never.

        Raises:
            TypeError: a hook cannot be called, or a number is none.
            ValueError: a number is out of bounds.
        """
        kind = AgentType(
            name=agent_type, factory=factory, size=size, min_idle=min_idle, max_waiting=max_waiting, reset=reset,
            validate=validate, close=close, max_idle=max_idle, max_lifetime=max_lifetime, timeout=timeout,
            nested=nested, leak_after=leak_after,
        )  # fmt: skip
        self._replace(agent_type, self._lender_of(kind))

    def load_types(self, source: Source) -> None:
        """Take agent types from outside the code; each is opened when it is first asked for.

        `[agents] types` and `types_from` do the same. A type's row has the arguments of `perfkit.agents.Agent`, and as
        `pool` those of `register`; a registered type goes before a loaded one of its name.

        Args:
            source: rows by type, the path of a .toml or .json file of them, or a function that returns the row of a
                type, None where there is no such type.

        Raises:
            ConfigError: a row has an unknown key, or the file cannot be read.
            TypeError: it is none of these.
        """
        self._types.load(source)

    def _lender_of(self, kind: AgentType[T]) -> Lender[T]:
        made = Lender if kind.leak_after is None else WatchedLender
        return made(kind, self._clock, self.settings)

    def _replace(self, agent_type: str, lender: Lender[Any]) -> None:
        _process.check()
        with self._lock:
            former = self._lenders.get(agent_type)
            self._lenders[agent_type] = lender
        if former is not None:
            former.shut()

    def get_agent(self, agent_type: str, timeout: float | None = None) -> Loan[Any]:
        """Lend an agent for a `with` block; it comes back, reset, however the block ends.

        The object given back by `get_agent` also has `discard()`, for a block that finds its agent broken.

        Args:
            agent_type: a registered name.
            timeout: seconds to wait when all are in use, 0 not to wait; None for what the type was registered with.
                The time the factory takes is not bounded by it.

        Raises:
            UnknownNameError: no such type; names the known ones. A KeyError.
            PoolTimeout: on entering the block: none came back in time, `reason` "late"; more than `max_waiting` would
                wait, "shed"; or the pool was shut down, "shut".
            Exception: on entering the block: what the factory raised.
        """
        try:
            lender = self._lenders[agent_type]
        except (KeyError, TypeError):
            lender = self._open(agent_type)
        return lender.loan(lender, timeout)

    def _open(self, agent_type: str) -> Lender[Any]:
        """Return the lender of a type of the configuration that is first asked for."""
        row = self._types.row(agent_type) if isinstance(agent_type, str) else None
        if row is None:
            raise UnknownNameError.of("agent type", agent_type, {*self._lenders, *self._types.known()})
        made = self._lender_of(AgentType(name=agent_type, **terms_of(agent_type, row)))
        with self._lock:
            self._opened.setdefault(agent_type, row)
            return self._lenders.setdefault(agent_type, made)

    def _lender(self, agent_type: str) -> Lender[Any]:
        found = self._lenders.get(agent_type)
        return found if found is not None else self._open(agent_type)

    def _chosen(self, agent_type: str | None) -> list[Lender[Any]]:
        return list(self._lenders.values()) if agent_type is None else [self._lender(agent_type)]

    def warm_up(self, agent_type: str, n: int = 5) -> int:
        """Make agents in parallel until `n` are idle, `size` being the most; return how many are idle now.

        Raises:
            UnknownNameError: no such type.
            Exception: what the factory raised first; agents that could be made stay.
        """
        return self._lender(agent_type).warm_up(n)

    def resize(self, agent_type: str, size: int) -> None:
        """Allow `size` agents from now on; surplus ones are closed now or when they come back."""
        check_bounds(agent_type, size=size)
        self._lender(agent_type).resize(size)

    def reload(self, agent_type: str | None = None) -> None:
        """Replace all agents of a type, or of all: idle ones are closed now, lent ones when they come back."""
        for lender in self._chosen(agent_type):
            lender.reload()

    def drain(self, timeout: float = 30.0, agent_type: str | None = None) -> bool:
        """Replace all agents, as `reload` does, and wait until those lent before have come back and are closed.

        Others go on being lent meanwhile, new ones.

        Args:
            timeout: seconds to wait for them.
            agent_type: one type; None for all.

        Returns:
            Whether all came back in time; those that did not are closed when they do.
        """
        return self._all_back([lender.reload() for lender in self._chosen(agent_type)], timeout)

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Lend nothing any more: who waits gets a PoolTimeout, idle agents are closed, lent ones when they return.

        `register` opens a type again.

        Args:
            timeout: seconds to wait for lent agents.

        Returns:
            Whether all came back in time.
        """
        return self._all_back([lender.shut() for lender in self._chosen(None)], timeout)

    def _all_back(self, waits: list[Callable[[float], bool]], timeout: float) -> bool:
        end = self._clock.now() + timeout
        return all(wait(max(0.0, end - self._clock.now())) for wait in waits)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return per type what its pool did in this process and its state now.

        Keys: size, idle, in_use, waiters; counts of lent, created, failed (factory), replaced (old or not valid when
        lent), broken (not fit when returned), discarded, retired (too old or too many), reaped, lost (interrupted
        threads), leaked (out for longer than `leak_after`), timeouts, shed, refused (shut down); wait: count, avg, max
        and percentiles of the seconds callers waited when no agent was idle, and as `histogram` how many waited no
        longer than each of ten bounds.
        """
        return {name: lender.stats() for name, lender in list(self._lenders.items())}

    def close(self) -> None:
        """Close idle agents now and lent ones when they come back; types stay, and may be used again."""
        self.reload()

    def reset(self) -> None:
        """Shut down without waiting, and forget all types and counts."""
        with self._lock:
            lenders, self._lenders, self._opened = self._lenders, {}, {}
        self._types.forget()
        for lender in lenders.values():
            lender.shut()

    def __repr__(self) -> str:
        return f"AgentPool({', '.join(map(repr, list(self._lenders.values())))})"
