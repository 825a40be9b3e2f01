from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfkit.clock import FakeClock
from perfkit.errors import BudgetExceededError
from perfkit.tokens import budget
from perfkit.tokens.budget import Budgets, Hold

DOLLAR = 10**9
CENT = DOLLAR // 100
TTL = 600.0
NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


def book(
    *rules: tuple[str, str, str], limit: int = DOLLAR, clock: FakeClock | None = None, zone: str = "UTC"
) -> Budgets:
    budgets = Budgets(clock if clock is not None else FakeClock(), ZoneInfo(zone) if zone != "UTC" else UTC)
    for key in rules:
        budgets.set(key, limit)
    return budgets


def row(budgets: Budgets, kind: str, name: str = "") -> dict[str, Any]:
    return next(row for row in budgets.rows() if row["scope"] == (kind, name))


def refused(budgets: Budgets, nano: int | None, **scopes: str) -> BudgetExceededError:
    with pytest.raises(BudgetExceededError) as caught:
        budgets.reserve(scopes, nano, TTL)
    return caught.value


def spend(budgets: Budgets, nano: int, **scopes: str) -> None:
    budgets.reserve(scopes, nano, TTL).settle(nano / DOLLAR)


@pytest.mark.usefixtures("_give_way")
def test_32_threads_never_overspend_and_use_nearly_all() -> None:
    budgets, barrier, most = book(("global", "", "total")), threading.Barrier(32), []

    def work(_: int) -> int:
        barrier.wait()
        calls = 0
        for _ in range(20):
            try:
                hold = budgets.reserve({}, CENT, TTL)
            except BudgetExceededError:
                continue
            most.append(row(budgets, "global")["spent"])
            hold.settle(0.01)
            calls += 1
        return calls

    with ThreadPoolExecutor(32) as pool:
        calls = sum(pool.map(work, range(32)))
    spent = row(budgets, "global")
    assert 0.97 <= spent["spent"] <= 1.0
    assert spent["spent"] == calls / 100
    assert max(most) <= 1.0
    assert spent["held"] == 0


def test_held_money_counts_before_it_is_spent() -> None:
    budgets = book(("global", "", "total"))
    holds = [budgets.reserve({}, 60 * CENT, TTL)]
    assert refused(budgets, 60 * CENT).spent == 0.6
    holds[0].settle(0.10)
    holds.append(budgets.reserve({}, 60 * CENT, TTL))
    assert row(budgets, "global") == {
        "scope": ("global", ""),
        "period": "total",
        "limit": 1.0,
        "spent": 0.1,
        "held": 0.6,
        "remaining": 0.3,
        "until": None,
    }


def test_reservation_up_to_the_last_nano_dollar_fits() -> None:
    budgets = book(("global", "", "total"))
    budgets.reserve({}, DOLLAR - 1, TTL)
    budgets.reserve({}, 1, TTL)
    assert refused(budgets, 1).needed == 1e-9


def test_all_budgets_are_taken_or_none() -> None:
    budgets = book(("user", "*", "day"), ("agent", "a", "day"))
    budgets.set(("global", "", "month"), 50 * CENT)
    error = refused(budgets, 60 * CENT, user="42", agent="a")
    assert error.scope == ("global", "")
    assert all(row["held"] == 0 for row in budgets.rows())
    budgets.reserve({"user": "42", "agent": "a"}, 50 * CENT, TTL)
    assert [row["held"] for row in budgets.rows()] == [0.5, 0.5, 0.5]


def test_each_user_has_an_own_budget_of_the_size() -> None:
    budgets = book(("user", "*", "day"))
    spend(budgets, DOLLAR, user="anna")
    assert refused(budgets, CENT, user="anna").scope == ("user", "anna")
    spend(budgets, DOLLAR, user="ben")
    assert {row["scope"][1] for row in budgets.rows()} == {"anna", "ben"}


def test_request_budget_bounds_one_call_and_adds_nothing_up() -> None:
    budgets = book(("user", "*", "request"))
    for _ in range(10):
        spend(budgets, DOLLAR, user="42")
    error = refused(budgets, DOLLAR + 1, user="42")
    assert (error.spent, error.until) == (0, None)


@pytest.mark.parametrize("ended", ["settle", "release", "exit"])
def test_hold_ends_once(ended: str) -> None:
    budgets = book(("global", "", "total"))
    hold = budgets.reserve({}, 50 * CENT, TTL)
    if ended == "settle":
        hold.settle(0.2)
    elif ended == "release":
        hold.release()
    else:
        with hold:
            pass
    hold.settle(0.9)
    hold.release()
    assert row(budgets, "global")["spent"] == (0.2 if ended == "settle" else 0.0)
    assert row(budgets, "global")["held"] == 0
    assert "ended" in repr(hold)


def test_hold_settled_inside_its_block_is_not_given_back() -> None:
    budgets = book(("global", "", "total"))
    with budgets.reserve({}, 50 * CENT, TTL) as hold:
        hold.settle(0.3)
    assert row(budgets, "global")["spent"] == 0.3


def test_unknown_cost_charges_what_was_held() -> None:
    budgets = book(("global", "", "total"))
    budgets.reserve({}, 50 * CENT, TTL).settle(None)
    assert row(budgets, "global")["spent"] == 0.5


def test_cost_above_the_hold_is_charged_in_full() -> None:
    budgets = book(("global", "", "total"))
    budgets.reserve({}, 90 * CENT, TTL).settle(1.2)
    assert row(budgets, "global")["spent"] == 1.2
    assert row(budgets, "global")["remaining"] == 0
    assert refused(budgets, 0).spent == 1.2


def test_leaked_hold_is_given_back_after_its_time() -> None:
    clock = FakeClock()
    budgets = book(("global", "", "total"), clock=clock)
    budgets.reserve({}, DOLLAR, 60)
    clock.advance(59.9)
    refused(budgets, CENT)
    clock.advance(0.1)
    budgets.reserve({}, DOLLAR, 60)
    assert row(budgets, "global")["held"] == 1.0


def test_each_hold_expires_at_its_own_time() -> None:
    clock = FakeClock()
    budgets = book(("global", "", "total"), clock=clock)
    for ttl in (300, 60, 120):
        budgets.reserve({}, 10 * CENT, ttl)
    held = []
    for _ in range(5):
        held.append(row(budgets, "global")["held"])
        clock.advance(60)
    assert held == [0.3, 0.2, 0.1, 0.1, 0.1]
    assert row(budgets, "global")["held"] == 0


def test_call_that_outlives_its_hold_is_still_charged() -> None:
    clock = FakeClock()
    budgets = book(("global", "", "total"), clock=clock)
    hold = budgets.reserve({}, 50 * CENT, 60)
    clock.advance(61)
    assert row(budgets, "global")["held"] == 0
    hold.settle(0.4)
    assert (row(budgets, "global")["spent"], row(budgets, "global")["held"]) == (0.4, 0)


def test_day_rolls_over_at_local_midnight() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    clock = FakeClock(wall=datetime(2026, 1, 31, 23, 59, 59, tzinfo=berlin).timestamp())
    budgets = book(("global", "", "day"), clock=clock, zone="Europe/Berlin")
    spend(budgets, DOLLAR)
    assert refused(budgets, CENT).until == datetime(2026, 2, 1, tzinfo=berlin).timestamp()
    clock.advance(1)
    spend(budgets, DOLLAR)
    assert row(budgets, "global")["until"] == datetime(2026, 2, 2, tzinfo=berlin).timestamp()


def test_month_rolls_over_with_the_day() -> None:
    clock = FakeClock(wall=datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC).timestamp())
    budgets = book(("global", "", "month"), clock=clock)
    spend(budgets, DOLLAR)
    refused(budgets, CENT)
    clock.advance(1)
    spend(budgets, DOLLAR)


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25)])
def test_budget_of_a_day_with_a_clock_change_lasts_until_midnight(day: tuple[int, int, int], hours: int) -> None:
    clock = FakeClock(wall=datetime(*day, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    budgets = book(("global", "", "day"), clock=clock, zone="Europe/Berlin")
    spend(budgets, DOLLAR)
    clock.advance(hours * 3600 - 1)
    refused(budgets, CENT)
    clock.advance(1)
    spend(budgets, DOLLAR)


def test_minute_rolls_over_each_minute() -> None:
    clock = FakeClock(wall=NOW)  # 20 seconds into a minute
    budgets = book(("global", "", "minute"), clock=clock)
    spend(budgets, DOLLAR)
    clock.advance(39)
    assert refused(budgets, CENT).until == NOW + 40
    clock.advance(1)
    spend(budgets, DOLLAR)


def test_call_over_midnight_is_charged_to_the_day_it_began() -> None:
    clock = FakeClock(wall=datetime(2026, 1, 1, 23, 59, 59, tzinfo=UTC).timestamp())
    budgets = book(("global", "", "day"), clock=clock)
    hold = budgets.reserve({}, DOLLAR, TTL)
    clock.advance(2)
    spend(budgets, 20 * CENT)
    hold.settle(1.0)
    assert (row(budgets, "global")["spent"], row(budgets, "global")["held"]) == (0.2, 0)


def test_clock_set_back_does_not_refill_a_budget() -> None:
    clock = FakeClock(wall=datetime(2026, 1, 2, tzinfo=UTC).timestamp())
    budgets = book(("global", "", "day"), clock=clock)
    spend(budgets, DOLLAR)
    clock._wall -= 7200
    refused(budgets, CENT)


def test_unknown_price_is_refused_by_a_matching_budget_only() -> None:
    budgets = book(("user", "42", "day"))
    assert "price is unknown" in str(refused(budgets, None, user="42"))
    assert budgets.reserve({"user": "43"}, None, TTL).amount == 0
    assert budgets._holds == {}


def test_free_call_fits_a_budget_that_is_used_up() -> None:
    budgets = book(("global", "", "total"))
    spend(budgets, DOLLAR)
    budgets.reserve({}, 0, TTL).settle(0)


def test_changed_limit_keeps_what_was_spent() -> None:
    budgets = book(("global", "", "total"))
    spend(budgets, DOLLAR)
    budgets.set(("global", "", "total"), 2 * DOLLAR)
    spend(budgets, DOLLAR)
    assert refused(budgets, 1).spent == 2.0


def test_removed_budget_refuses_nothing() -> None:
    budgets = book(("global", "", "total"))
    spend(budgets, DOLLAR)
    budgets.set(("global", "", "total"), None)
    spend(budgets, DOLLAR)
    assert not budgets
    assert budgets.rows() == []


def test_configured_rules_are_replaced_and_those_set_by_hand_stay() -> None:
    budgets = book(("user", "42", "day"))
    budgets.configure({("global", "", "day"): DOLLAR, ("agent", "*", "day"): DOLLAR}, UTC)
    budgets.configure({("global", "", "day"): 2 * DOLLAR}, UTC)
    assert dict(budgets._rules) == {("user", "42", "day"): DOLLAR, ("global", "", "day"): 2 * DOLLAR}
    budgets.set(("global", "", "day"), 3 * DOLLAR)
    budgets.configure({}, UTC)
    assert dict(budgets._rules) == {("user", "42", "day"): DOLLAR, ("global", "", "day"): 3 * DOLLAR}


def test_accounts_of_ended_periods_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SWEEP_LEAST", 10)
    clock = FakeClock()
    budgets = book(("user", "*", "minute"), ("user", "*", "request"), clock=clock)
    for number in range(1000):
        spend(budgets, CENT, user=str(number))
        clock.advance(30)
    assert len(budgets._accounts) <= 20
    assert budgets._holds == {}


def test_clear_forgets_rules_spending_and_holds() -> None:
    budgets = book(("global", "", "total"))
    hold = budgets.reserve({}, DOLLAR, TTL)
    budgets.clear()
    budgets.set(("global", "", "total"), DOLLAR)
    hold.settle(1.0)
    spend(budgets, DOLLAR)
    assert row(budgets, "global")["spent"] == 1.0


def test_forked_child_keeps_spending_and_drops_the_parents_holds() -> None:
    budgets = book(("global", "", "total"))
    spend(budgets, 20 * CENT)
    hold = budgets.reserve({}, 50 * CENT, TTL)
    budgets._lock.acquire()  # as another thread of the parent held it
    budgets.after_fork()
    assert (row(budgets, "global")["spent"], row(budgets, "global")["held"]) == (0.2, 0)
    hold.release()
    assert row(budgets, "global")["held"] == 0


Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "release", "wait"]), st.integers(0, 60), st.integers(0, 60))
    )
)
def test_books_balance_after_any_course_of_events(steps: list[Step]) -> None:
    clock = FakeClock()
    budgets = book(("global", "", "total"), clock=clock)
    open_holds: list[tuple[Hold, int]] = []
    spent = 0
    for action, amount, other in steps:
        if action == "reserve":
            with suppress(BudgetExceededError):
                open_holds.append((budgets.reserve({}, amount * CENT, 1 + other), amount))
        elif action == "wait":
            clock.advance(amount)
        elif open_holds:
            hold, held = open_holds.pop(other % len(open_holds))
            cost = min(amount, held) if action == "settle" else 0
            hold.settle(cost / 100) if action == "settle" else hold.release()
            spent += cost
    now = row(budgets, "global")
    alive = sum(held for hold, held in open_holds if hold.expires > clock.now())
    assert now["spent"] == pytest.approx(spent / 100)
    assert now["held"] == pytest.approx(alive / 100)
