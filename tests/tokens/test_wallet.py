from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from perfkit.clock import FakeClock
from perfkit.errors import BudgetExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.tokens import TokenOptimizer
from perfkit.tokens.wallet import Till, Wallet
from perfkit.values import ChatRequest


def test_threads_together_take_no_more_than_there_is() -> None:
    till, wallet, start = Till(), Wallet(1e-6), threading.Barrier(8)  # 1000 nano-dollars

    def spend(_: int) -> int:
        start.wait(10)
        paid = 0
        for _ in range(100):
            try:
                till.take([wallet], 3).settle(2e-9)
            except BudgetExceededError:
                continue
            paid += 2
        return paid

    with ThreadPoolExecutor(8) as pool:
        paid = sum(pool.map(spend, range(8)))
    assert (wallet.spent, wallet.held) == (paid, 0)
    assert 997 < paid <= 1000


def test_all_wallets_give_or_none() -> None:
    till, outer, inner = Till(), Wallet(1.0, "outer"), Wallet(5.0, "inner")
    till.take([outer, inner], 600_000_000).settle(0.5)
    with pytest.raises(BudgetExceededError) as refused:
        till.take([inner, outer], 600_000_000)
    assert (refused.value.scope, refused.value.period) == (("request", "outer"), "request")
    assert (refused.value.limit, refused.value.spent, refused.value.needed) == (1.0, 0.5, 0.6)
    assert (inner.held, outer.held) == (0, 0)


def test_money_is_given_back_once_and_an_unknown_cost_is_all_of_it() -> None:
    till, wallet = Till(), Wallet(1.0)
    taken = till.take([wallet], 100)
    taken.settle(None)
    taken.release()
    assert (wallet.spent, wallet.held) == (100, 0)
    till.take([wallet], 100).release()
    assert (wallet.spent, wallet.held) == (100, 0)
    with pytest.raises(BudgetExceededError, match=r"price is unknown: set tokens\.prices"):
        till.take([wallet], None)


def test_nothing_is_held_of_a_request_that_another_budget_refuses() -> None:
    clock = FakeClock()
    optimizer = TokenOptimizer(
        clock=clock, tracker=PerformanceTracker(clock=clock), prices={"m": {"input": 0, "output": 1000}}
    )
    optimizer.set_budget("global", 0.001, "day")
    wallet = Wallet(1.0)
    request = ChatRequest([{"role": "user", "content": "hi"}], "m", max_tokens=100)
    with pytest.raises(BudgetExceededError) as refused:
        optimizer.admit(request, "p", wallets=[wallet])
    assert refused.value.scope == ("global", "")
    assert wallet.held == 0
    optimizer.set_budget("global", None, "day")
    admission = optimizer.admit(request, "p", wallets=[wallet])
    assert wallet.held == 100_000_000
    assert admission.hold is not None
    admission.hold.settle(0.05)
    assert (wallet.spent, wallet.held) == (50_000_000, 0)


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "<script>", "line\nbreak", "é"])
def test_what_is_no_plain_id_is_not_repeated(given: str | None) -> None:
    wallet = Wallet(1.0, lambda: given)
    assert wallet.request != given
    assert wallet.request == wallet.request
    assert len(wallet.request) == 8
