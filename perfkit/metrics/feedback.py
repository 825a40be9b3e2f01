"""What users thought of an answer: remembered which provider and model gave it, recorded beside their other metrics."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Answers", "opinions"]

_REMEMBERED = 10_000  # answers


class Answers:
    """The tags of the newest answers by response id; every step is atomic, so there is no lock."""

    def __init__(self) -> None:
        self._tags: OrderedDict[str, Mapping[str, str]] = OrderedDict()  # a dict looks long for its oldest key

    def remember(self, response_id: str, tags: Mapping[str, str]) -> None:
        """Note who gave an answer."""
        self._tags[response_id] = tags
        if len(self._tags) > _REMEMBERED:
            try:  # noqa: SIM105 - every answer comes through here
                self._tags.popitem(last=False)
            except KeyError:  # emptied by another thread
                pass

    def tags(self, response_id: Any) -> Mapping[str, str] | None:
        """Return who gave an answer, None when it is not known; takes an id or the response itself."""
        if isinstance(response_id, str):
            return self._tags.get(response_id)
        found = self._tags.get(getattr(response_id, "id", None) or "")
        if found is None and hasattr(response_id, "provider") and hasattr(response_id, "model"):
            return {"provider": response_id.provider, "model": response_id.model}
        return found

    def clear(self) -> None:
        """Forget all."""
        self._tags.clear()


def opinions(score: float | None, satisfied: bool | None, completed: bool | None) -> Iterator[tuple[str, float]]:
    """Yield name and value of each metric that was given an opinion."""
    for name, opinion in (
        ("feedback_score", score),
        ("feedback_satisfied", satisfied),
        ("feedback_completed", completed),
    ):
        if opinion is not None:
            yield name, float(opinion)
