"""Budgets that processes and hosts share through Redis.

Each account is one hash: what is spent, what is held, and how much of that until when, so that a killed worker's money
returns by itself. The times of holds are rounded up, by an eighth at most: an account stays as small with a thousand
calls under way as with one, and no hold needs a name. One script checks and takes all budgets of a call in one step, by
the server's clock. While Redis is away each process goes on by itself from the last totals it has heard, and tells what
it spent when Redis is back. What a reply that never came may have done is counted twice rather than not at all: a hold
until it expires, a cost for the period.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from perfkit.errors import StateUnavailableError
from perfkit.tokens.budget import Account, Budgets, Hold
from perfkit.tokens.rules import exceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import tzinfo

    from perfkit.clock import Clock
    from perfkit.state import RedisLink, Script
    from perfkit.tokens.rules import Key

__all__ = ["SharedBudgets"]

LINGER: Final = 3600  # seconds an account outlives its period: calls that began in it are settled there

# A hash has `spent`, `held`, `next` (the first time below), and for each time (milliseconds) what is held until then.
# ARGV: nano-dollars, hold's milliseconds; for each key its limit and the seconds to keep it; then, if Redis was away,
# for each key the nano-dollars spent meanwhile. Reply: the time the hold ends, or minus the number of the key that
# refuses; what each has spent; and what is held of the one that refuses.
RESERVE: Final = """
local call, clock = redis.call, redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local amount, step = tonumber(ARGV[1]), math.ceil(ARGV[2] / 8)
local ends = math.ceil((now + ARGV[2]) / step) * step
local reply, rows, refused = {ends}, {}, 0
for i, key in ipairs(KEYS) do
  local limit, untold = tonumber(ARGV[2 * i + 1]), ARGV[2 * #KEYS + 2 + i]
  if untold then call('HINCRBY', key, 'spent', untold) end
  local row = call('HMGET', key, 'spent', 'held', 'next', ends)
  local spent, held, next = tonumber(row[1] or 0), tonumber(row[2] or 0), tonumber(row[3] or 0)
  if next > 0 and next <= now then
    local all = call('HGETALL', key)
    next = 0
    for n = 1, #all, 2 do
      local at = tonumber(all[n])
      if at and at <= now then
        call('HDEL', key, all[n])
        held = held - all[n + 1]
      elseif at and (next == 0 or at < next) then
        next = at
      end
    end
    call('HSET', key, 'held', held, 'next', next)
  end
  rows[i] = {held, next, row[4] or 0, row[2]}
  reply[i + 1] = spent
  if refused == 0 and spent + held + amount > limit then refused = i end
end
if refused > 0 then
  reply[1], reply[#KEYS + 2] = -refused, rows[refused][1]
  return reply
end
for i, key in ipairs(KEYS) do
  local held, next, there, known = unpack(rows[i])
  if next == 0 or ends < next then next = ends end
  call('HSET', key, 'held', held + amount, 'next', next, ends, there + amount)
  if not known and ARGV[2 * i + 2] ~= '0' then call('EXPIRE', key, ARGV[2 * i + 2]) end
end
return reply
"""

# ARGV: time the hold ends, its nano-dollars, the cost; then for each key the seconds to keep it. Reply: what each has
# spent. A time that is not there has passed: what was held until then has been given back.
SETTLE: Final = """
local call, reply = redis.call, {}
for i, key in ipairs(KEYS) do
  local row = call('HMGET', key, 'spent', 'held', ARGV[1])
  if row[3] then call('HSET', key, 'held', row[2] - ARGV[2], ARGV[1], row[3] - ARGV[2]) end
  reply[i] = call('HINCRBY', key, 'spent', ARGV[3])
  if not row[1] and ARGV[3 + i] ~= '0' then call('EXPIRE', key, ARGV[3 + i]) end
end
return reply
"""


class SharedBudgets(Budgets):
    """Budgets in Redis where there is one, else in this process.

    Args:
        link: returns the Redis to use, None for none.
    """

    def __init__(self, clock: Clock, zone: tzinfo, link: Callable[[], RedisLink | None]) -> None:
        self._link = link
        self._scripts: tuple[RedisLink, Script, Script] | None = None  # of the link they belong to
        super().__init__(clock, zone)

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
        rules = self._rules.matching(scopes)
        shared = [rule for rule in rules if rule[0][2] != "request"]
        if not shared or any(nano > limit for (_, _, period), limit in rules if period == "request"):
            return super().reserve(scopes, nano, ttl)
        try:
            return self._reserve(link, shared, nano, ttl)
        except StateUnavailableError:
            return super().reserve(scopes, nano, ttl)

    def _reserve(self, link: RedisLink, rules: Iterable[tuple[Key, int]], nano: int, ttl: float) -> Hold:
        with self._lock:
            found = self._found(rules)
            accounts = tuple([account for _, _, account in found])
            unsent = self._unsent(accounts)
        keys, arguments = [], [nano, max(1, int(ttl * 1000))]
        for _, limit, account in found:
            keys.append(_key(link, account))
            arguments += (limit, self._keep(account))
        try:
            ends, *told = self._of(link)[1](keys, arguments + unsent)
        except StateUnavailableError:
            with self._lock:
                self._untold(accounts, unsent)
            raise
        with self._lock:
            self._mirror(accounts, told)
            if ends > 0:
                hold = self._hold(accounts, nano, self._clock.now() + ttl)
                hold.shared_until = ends
                return hold
        (key, limit, account), spent, held = found[-ends - 1], told[-ends - 1], told[-1]
        raise exceeded(key, limit, spent + held, nano, (account.end, self._zone), held=held)

    @staticmethod
    def _unsent(accounts: Iterable[Account]) -> list[int]:
        """Take what Redis has still to be told of; nothing where that is nothing."""
        unsent = [account.unsent for account in accounts]
        if not any(unsent):
            return []
        for account in accounts:
            account.unsent = 0
        return unsent

    def _keep(self, account: Account) -> int:
        """Return the seconds Redis keeps an account; 0: for ever."""
        return 0 if account.end is None else max(1, int(account.end - self._clock.wall())) + LINGER

    @staticmethod
    def _mirror(accounts: Iterable[Account], spent: Iterable[int]) -> None:
        """Note the totals of all processes; they only grow, so an older reply does not undo a newer one."""
        for account, total in zip(accounts, spent, strict=False):
            account.spent = max(account.spent, total)

    def _charge(self, hold: Hold, cost: int) -> None:
        super()._charge(hold, cost)
        if hold.shared_until is None:
            self._untold(hold.accounts, repeat(cost))

    @staticmethod
    def _untold(accounts: Iterable[Account], costs: Iterable[int]) -> None:
        for account, cost in zip(accounts, costs, strict=False):
            account.unsent += cost

    def end(self, hold: Hold, cost: int) -> bool:
        """Give a hold back and charge `cost` nano-dollars instead, here and in Redis; once."""
        if not super().end(hold, cost):
            return False
        if hold.shared_until is not None:
            self._settle(hold, cost)
        return True

    def _settle(self, hold: Hold, cost: int) -> None:
        link, accounts, spent = self._link(), hold.accounts, None
        arguments = [hold.shared_until, hold.nano, cost, *map(self._keep, accounts)]
        with suppress(StateUnavailableError):
            if link is not None:  # None: it was configured away meanwhile
                spent = self._of(link)[2]([_key(link, account) for account in accounts], arguments)
        with self._lock:
            if spent is None:
                self._untold(accounts, repeat(cost))
            else:
                self._mirror(accounts, spent)

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
