"""Budgets: money is held before a call and settled after it, so that threads together cannot overspend.

Checking first and adding the cost afterwards lets every call in flight pass the check. Here a call reserves what it may
cost at worst, in all budgets that match it or in none, and gives back what it did not use. A hold that is never settled
(a killed thread, a forgotten stream) expires. Budgets here are one process's; perfkit.tokens.ledger shares them.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from perfkit.tokens.periods import window
from perfkit.tokens.pricing import from_nano, to_nano
from perfkit.tokens.rules import EACH, REFUSE, Rulebook, exceeded
from perfkit.values import finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import tzinfo
    from types import TracebackType

    from perfkit.clock import Clock
    from perfkit.errors import BudgetExceededError
    from perfkit.tokens.rules import Answer, Key, Rules

__all__ = ["Account", "Budgets", "Hold", "Note"]

WARN_SHARE: Final = 0.8  # of a limit (RecoAgent guide, "cost_limit_exceeded": daily_cost > daily_limit * 0.8)
SWEEP_LEAST: Final = 1024  # accounts; ended ones are dropped whenever their number has doubled


@dataclass(slots=True)
class Account:
    """Money of one scope in one period, in nano-dollars; a new period is a new account.

    A hold keeps the account it was taken from, so a call that outlives its period is charged to the one it began in.
    """

    key: Key
    begin: float
    end: float | None
    spent: int = 0
    held: int = 0
    unsent: int = 0  # spent, and not yet told to a ledger that other processes read
    shared_held: int = 0  # held by all processes, when the ledger was last read
    warned: bool = False  # that most of it is spent


@dataclass(frozen=True, slots=True)
class Note:
    """How far an account is spent: `share` of `limit` (nano-dollars); `own`: of a budget of its name's own."""

    key: Key
    own: bool
    share: float
    limit: int


class Hold:
    """Money set aside for one call; a context manager that gives it back unless it was settled.

    Attributes:
        amount: US dollars held.
    """

    __slots__ = ("accounts", "amount", "budgets", "ended", "expires", "nano", "shared_until")

    def __init__(self, budgets: Budgets, accounts: tuple[Account, ...], nano: int, expires: float) -> None:
        self.budgets = budgets
        self.accounts = accounts
        self.nano = nano
        self.shared_until: int | None = None  # where a ledger knows of it: the time it counts it to
        self.expires = expires  # monotonic seconds
        self.ended = False
        self.amount = from_nano(nano)

    def settle(self, cost: float | None) -> None:
        """Replace the hold by what the call cost, in US dollars; None, unknown, charges what was held.

        Works after the hold has expired too: the money is spent. Only the first settle or release counts.
        """
        if self.budgets.end(self, self.nano if cost is None else to_nano(finite("cost", cost, least=0))):
            self.budgets.tell(self.accounts)

    def release(self) -> None:
        """Give the money back: the call did not happen."""
        self.budgets.end(self, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"Hold(${self.amount:.6f} in {len(self.accounts)} budgets{', ended' if self.ended else ''})"


class Budgets:
    """The rules and what was spent under them; safe to use from many threads.

    Args:
        zone: where days and months begin.

    Attributes:
        listener: called with a Note when 80 % of a budget are spent, once in its period, without any lock held.
    """

    def __init__(self, clock: Clock, zone: tzinfo) -> None:
        self.listener: Callable[[Note], None] | None = None
        self._clock = clock
        self._zone = zone
        self._accounts: dict[Key, Account] = {}
        self.after_fork()
        self.clear()

    def after_fork(self) -> None:
        """Make the lock new; money spent stays spent, but what is held belongs to the parent's calls."""
        self._lock = threading.Lock()  # guards all that is below, and the state of every Account and Hold
        self._forget_holds()

    def _forget_holds(self) -> None:
        self._holds: dict[Hold, None] = {}
        self._next_expiry = math.inf
        for account in self._accounts.values():
            account.held = 0

    def clear(self) -> None:
        """Forget rules, spending and holds."""
        with self._lock:
            self._rules = Rulebook()
            self._configured: Rules = {}
            self._answers: dict[Key, Answer] = {}
            self._accounts = {}
            self._sweep_at = SWEEP_LEAST
            self._forget_holds()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def configure(self, rules: Rules, zone: tzinfo, answers: Mapping[Key, Answer] | None = None) -> None:
        """Put `rules` in the place of those configured before; rules set by hand stay."""
        with self._lock:
            by_hand = {key: limit for key, limit in self._rules.items() if key not in self._configured}
            kept = {key: answer for key, answer in self._answers.items() if key in by_hand}
            self._answers = {**(answers if answers is not None else {}), **kept}
            self._rules, self._configured, self._zone = Rulebook({**by_hand, **rules}), rules, zone

    def set(self, key: Key, limit: int | None, answer: Answer = REFUSE) -> None:
        """Set the limit of a budget in nano-dollars, None to remove it; what was spent under it stays."""
        with self._lock:
            self._answers = {**self._answers, key: answer}
            self._configured = {k: v for k, v in self._configured.items() if k != key}
            rules = {k: v for k, v in self._rules.items() if k != key}
            self._rules = Rulebook(rules if limit is None else {**rules, key: limit})

    def reserve(self, scopes: Mapping[str, str | None], nano: int | None, ttl: float) -> Hold:
        """Hold `nano` for `ttl` seconds in every budget that matches, or in none.

        Raises:
            BudgetExceededError: one has too little left, or `nano` is None, the cost being unknown.
        """
        expires = self._clock.now() + ttl
        rules = self._rules.matching(scopes)
        with self._lock:
            found = self._found(rules)
            refusal = next((row for row in found if _refuses(row[1], row[2], nano)), None)
            if refusal is None:
                return self._hold(tuple(account for _, _, account in found), nano if nano is not None else 0, expires)
            key, limit, account = refusal
            taken, held = account.spent + account.held, account.held
        raise exceeded(key, limit, taken, nano, (account.end, self._zone), held=held)

    def answer(self, refusal: BudgetExceededError) -> Answer:
        """Return what the budget that refused a call wants done."""
        (kind, name), period = refusal.scope, refusal.period
        return self._answers.get((kind, name, period), self._answers.get((kind, EACH, period), REFUSE))

    def _found(self, rules: Iterable[tuple[Key, int]]) -> list[tuple[Key, int, Account]]:
        self._expire()
        return [(key, limit, self._account(key)) for key, limit in rules]

    def _hold(self, accounts: tuple[Account, ...], nano: int, expires: float) -> Hold:
        hold = Hold(self, accounts, nano, expires)
        for account in accounts:
            account.held += nano
        if accounts:
            self._holds[hold] = None
            self._next_expiry = min(self._next_expiry, expires)
        return hold

    def _account(self, key: Key) -> Account:
        """Return the account of the present period; a clock set back does not bring an ended one back."""
        if key[2] == "request":
            return Account(key, 0.0, None)
        now = self._clock.wall()
        account = self._accounts.get(key)
        if account is None or (account.end is not None and now >= account.end):
            if len(self._accounts) >= self._sweep_at:
                self._sweep(now)
            account = self._accounts[key] = Account(key, *window(key[2], now, self._zone))
        return account

    def _sweep(self, now: float) -> None:
        self._accounts = {k: a for k, a in self._accounts.items() if a.end is None or a.end > now}
        self._sweep_at = max(SWEEP_LEAST, 2 * len(self._accounts))

    def _expire(self) -> None:
        now = self._clock.now()
        if now < self._next_expiry:
            return
        for hold in [hold for hold in self._holds if hold.expires <= now]:
            self._give_back(hold)
        self._next_expiry = min((hold.expires for hold in self._holds), default=math.inf)

    def _give_back(self, hold: Hold) -> None:
        if hold in self._holds:
            del self._holds[hold]
            for account in hold.accounts:
                account.held -= hold.nano

    def end(self, hold: Hold, cost: int) -> bool:
        """Give a hold back and charge `cost` nano-dollars instead; once, as the result says."""
        with self._lock:
            if hold.ended:
                return False
            hold.ended = True
            self._give_back(hold)
            self._charge(hold, cost)
        return True

    def _charge(self, hold: Hold, cost: int) -> None:
        for account in hold.accounts:
            account.spent += cost

    def tell(self, accounts: Iterable[Account]) -> None:
        """Tell the listener of accounts that are nearly spent."""
        if self.listener is None:
            return
        with self._lock:
            notes = [note for account in accounts if (note := self._note(account)) is not None]
        for note in notes:
            self.listener(note)

    def _note(self, account: Account) -> Note | None:
        kind, _, period = account.key
        own = account.key in self._rules
        limit = self._rules.get(account.key if own else (kind, EACH, period))
        if not limit or period == "request":
            return None
        share = account.spent / limit
        if account.warned or share < WARN_SHARE:
            return None
        account.warned = True
        return Note(account.key, own, share, limit)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict a budget: scope, period, limit, spent, held, remaining (US dollars), until (epoch seconds).

        A budget for each name has a row for every name seen in the present period.
        """
        with self._lock:
            self._expire()
            self._sweep(self._clock.wall())
            return [_row(key, limit, self._account(key)) for key, limit in self._present().items()]

    def _present(self) -> dict[Key, int]:
        """Return the limits of all names with a budget of their own, and of those seen where each name has one."""
        rules = {(kind, name, period): limit for (kind, name, period), limit in self._rules.items() if name != EACH}
        for kind, name, period in self._accounts:
            if (kind, EACH, period) in self._rules:
                rules.setdefault((kind, name, period), self._rules[kind, EACH, period])
        return rules


def _refuses(limit: int, account: Account, nano: int | None) -> bool:
    return nano is None or account.spent + account.held + nano > limit


def _row(key: Key, limit: int, account: Account) -> dict[str, Any]:
    held = max(account.held, account.shared_held)
    left = max(0, limit - account.spent - held)
    money = {"limit": limit, "spent": account.spent, "held": held, "remaining": left}
    named = {name: from_nano(amount) for name, amount in money.items()}
    return {"scope": key[:2], "period": key[2], **named, "until": account.end}
