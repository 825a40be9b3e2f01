"""Budgets that processes and hosts share through Redis.

Each account is one hash: what is spent, what is held, and every hold with the time it expires, so that a killed
worker's money returns by itself. One script checks and takes all budgets of a call in one step, by the server's clock.
While Redis is away each process goes on by itself from the last totals it has heard, and tells what it spent when Redis
is back. What a reply that never came may have done is counted twice rather than not at all: a hold until it expires, a
cost for the period.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from perfkit.errors import StateUnavailableError
from perfkit.tokens.budget import Account, Budgets, Hold
from perfkit.tokens.rules import exceeded, matching

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import tzinfo

    from perfkit.clock import Clock
    from perfkit.state import RedisLink, Script
    from perfkit.tokens.rules import Key

__all__ = ["SharedBudgets"]

LINGER: Final = 3600  # seconds an account outlives its period: calls that began in it are settled there

# ARGV: nano-dollars, hold's milliseconds, hold's id; then for each key its limit, seconds to keep it, nano-dollars that
# were spent while Redis was away. Reply: 0 or the number of the key that refuses; then spent and held of each.
RESERVE: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local amount, expires = tonumber(ARGV[1]), now + ARGV[2]
local reply, soonest = {0}, {}
for i, key in ipairs(KEYS) do
  if ARGV[3 * i + 3] ~= '0' then redis.call('HINCRBY', key, 'spent', ARGV[3 * i + 3]) end
  local row = redis.call('HMGET', key, 'spent', 'held', 'next')
  local spent, held, next = tonumber(row[1] or 0), tonumber(row[2] or 0), tonumber(row[3] or 0)
  if next > 0 and next <= now then
    local all = redis.call('HGETALL', key)
    next = 0
    for n = 1, #all, 2 do
      if string.sub(all[n], 1, 2) == 'h:' then
        local at, nano = string.match(all[n + 1], '^(%d+):(%d+)$')
        at = tonumber(at)
        if at <= now then
          redis.call('HDEL', key, all[n])
          held = held - nano
        elseif next == 0 or at < next then
          next = at
        end
      end
    end
    redis.call('HSET', key, 'held', held, 'next', next)
  end
  soonest[i] = (next == 0 or expires < next) and expires or next
  reply[2 * i], reply[2 * i + 1] = spent, held
  if reply[1] == 0 and spent + held + amount > tonumber(ARGV[3 * i + 1]) then reply[1] = i end
end
if reply[1] == 0 then
  for i, key in ipairs(KEYS) do
    redis.call('HSET', key, 'held', reply[2 * i + 1] + amount, 'next', soonest[i],
      'h:' .. ARGV[3], expires .. ':' .. ARGV[1])
    if ARGV[3 * i + 2] ~= '0' then redis.call('EXPIRE', key, ARGV[3 * i + 2]) end
  end
end
return reply
"""

# ARGV: hold's id, its nano-dollars, the cost; then for each key the seconds to keep it. Reply: what each has spent.
SETTLE: Final = """
local reply = {}
for i, key in ipairs(KEYS) do
  if redis.call('HDEL', key, 'h:' .. ARGV[1]) == 1 then redis.call('HINCRBY', key, 'held', '-' .. ARGV[2]) end
  reply[i] = redis.call('HINCRBY', key, 'spent', ARGV[3])
  if ARGV[3 + i] ~= '0' then redis.call('EXPIRE', key, ARGV[3 + i]) end
end
return reply
"""


class _Line(NamedTuple):
    """One budget of a call: its limit, and what Redis has still to be told of its account."""

    key: Key
    limit: int
    account: Account
    unsent: int


class SharedBudgets(Budgets):
    """Budgets in Redis where there is one, else in this process.

    Args:
        link: returns the Redis to use, None for none.
    """

    def __init__(self, clock: Clock, zone: tzinfo, link: Callable[[], RedisLink | None]) -> None:
        self._link = link
        self._scripts: tuple[RedisLink, Script, Script] | None = None  # of the link they belong to
        super().__init__(clock, zone)

    def after_fork(self) -> None:
        """Make the lock new, and names of holds that no other process gives."""
        super().after_fork()
        self._names = map(f"{uuid.uuid4().hex[:16]}{{}}".format, count())  # each step on it is atomic, so no lock

    def _of(self, link: RedisLink) -> tuple[RedisLink, Script, Script]:
        """Return the scripts of a link; making them twice does no harm."""
        found = self._scripts
        if found is None or found[0] is not link:
            found = self._scripts = (link, link.script(RESERVE), link.script(SETTLE))
        return found

    def reserve(self, scopes: Mapping[str, str | None], nano: int | None, ttl: float) -> Hold:
        """Hold `nano` for `ttl` seconds in every budget that matches, or in none, for all processes.

        Raises:
            BudgetExceededError: as for one process.
        """
        link = self._link() if self._rules else None
        if link is None or nano is None:
            return super().reserve(scopes, nano, ttl)
        lines = self._lines(scopes)
        shared = [line for line in lines if line.key[2] != "request"]
        alone = next((line for line in lines if line.key[2] == "request" and nano > line.limit), None)
        if alone is not None or not shared:
            self._not_told(lines)
            return super().reserve(scopes, nano, ttl)
        name = next(self._names)
        try:
            reply = self._take(link, shared, nano, ttl, name)
        except StateUnavailableError:
            self._not_told(lines)
            return super().reserve(scopes, nano, ttl)
        with self._lock:
            self._mirror(shared, reply)
            if not reply[0]:
                hold = self._hold(tuple([line.account for line in lines]), nano, self._clock.now() + ttl)
                hold.shared_id = name
                return hold
        line, (spent, held) = shared[reply[0] - 1], reply[2 * reply[0] - 1 :][:2]
        raise exceeded(line.key, line.limit, spent + held, nano, (line.account.end, self._zone), held=held)

    def _lines(self, scopes: Mapping[str, str | None]) -> list[_Line]:
        rules = list(matching(self._rules, scopes))
        with self._lock:
            lines = [_Line(key, limit, account, account.unsent) for key, limit, account in self._found(rules)]
            for line in lines:
                line.account.unsent = 0
        return lines

    def _not_told(self, lines: Sequence[_Line]) -> None:
        with self._lock:
            for line in lines:
                line.account.unsent += line.unsent

    def _take(self, link: RedisLink, lines: Sequence[_Line], nano: int, ttl: float, name: str) -> list[int]:
        arguments: list[Any] = [nano, int(ttl * 1000), name]
        for line in lines:
            arguments += [line.limit, self._keep(line.account), line.unsent]
        reply: list[int] = self._of(link)[1](keys=[_key(link, line.account) for line in lines], args=arguments)
        return reply

    def _keep(self, account: Account) -> int:
        """Return the seconds Redis keeps an account; 0: for ever."""
        return 0 if account.end is None else max(1, int(account.end - self._clock.wall())) + LINGER

    def _mirror(self, lines: Sequence[_Line], reply: Sequence[int]) -> None:
        """Note the totals of all processes; they only grow, so an older reply does not undo a newer one."""
        for line, spent in zip(lines, reply[1::2], strict=True):
            line.account.spent = max(line.account.spent, spent)

    def _charge(self, hold: Hold, cost: int) -> None:
        super()._charge(hold, cost)
        if hold.shared_id is None:
            self._untold(hold.accounts, cost)

    @staticmethod
    def _untold(accounts: Iterable[Account], cost: int) -> None:
        for account in accounts:
            account.unsent += cost

    def end(self, hold: Hold, cost: int) -> bool:
        """Give a hold back and charge `cost` nano-dollars instead, here and in Redis; once."""
        if not super().end(hold, cost):
            return False
        if hold.shared_id is not None:
            self._settle([account for account in hold.accounts if account.key[2] != "request"], hold, cost)
        return True

    def _settle(self, accounts: Sequence[Account], hold: Hold, cost: int) -> None:
        link, spent = self._link(), None
        arguments = [hold.shared_id, hold.nano, cost, *map(self._keep, accounts)]
        with suppress(StateUnavailableError):
            if link is not None:  # None: it was configured away meanwhile
                spent = self._of(link)[2]([_key(link, account) for account in accounts], arguments)
        with self._lock:
            if spent is None:
                self._untold(accounts, cost)
                return
            for account, total in zip(accounts, spent, strict=True):
                account.spent = max(account.spent, total)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict a budget, with the totals of all processes for the names this one has seen."""
        link = self._link()
        if link is not None:
            self._refresh(link)
        return super().rows()

    def _refresh(self, link: RedisLink) -> None:
        with self._lock:
            self._expire()
            accounts = [self._account(key) for key in self._present() if key[2] != "request"]
        try:
            replies = link.pipeline([("HMGET", _key(link, account), "spent", "held") for account in accounts])
        except StateUnavailableError:
            replies = [(None, None)] * len(accounts)
        with self._lock:
            for account, (spent, held) in zip(accounts, replies, strict=True):
                account.spent = max(account.spent, int(spent or 0))
                account.shared_held = int(held or 0)


def _key(link: RedisLink, account: Account) -> str:
    """Return the name of an account's hash; the braces keep all accounts on one node of a cluster."""
    return link.key("{budgets}", *account.key, int(account.begin))
