from __future__ import annotations

from celery import Celery

import perfkit
from perfkit.integrations import celery as integration
from perfkit.pipeline.scoping import Scope, current_scope


def test_a_task_is_measured_and_its_calls_have_a_deadline() -> None:
    integration.setup()
    integration.setup()
    perfkit.configure(web={"request_timeout": 9, "request_budget": 0.01})
    app = Celery(set_as_current=False)
    app.conf.task_always_eager = True
    seen: list[Scope | None] = []

    @app.task(name="shop.sum")  # type: ignore[untyped-decorator]
    def total(number: int) -> int:
        seen.append(current_scope())
        return 12 // number

    assert total.apply((3,), task_id="task-7").get() == 4
    assert total.delay(0).failed()
    assert [scope is not None and scope.deadline is not None for scope in seen] == [True, True]
    assert current_scope() is None
    assert seen[0] is not None
    assert [wallet.request for wallet in seen[0].wallets] == ["task-7"]
    for state in ("SUCCESS", "FAILURE"):
        tags = {"task": "shop.sum", "state": state}
        assert perfkit.tracker.get_stats(integration.METRIC, tags=tags)["count"] == 1
