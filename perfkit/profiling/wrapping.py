"""`profile` as people write it: around a block, a function or a generator function."""

from __future__ import annotations

import functools
import inspect
from threading import get_ident
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from perfkit.profiling.runs import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import TracebackType

    from perfkit.metrics.operations import Running
    from perfkit.profiling.runs import Operation, Profile

__all__ = ["Measurement"]

P = ParamSpec("P")
R = TypeVar("R")


class Measurement:
    """Measures a block, or makes functions measured ones; one block at a time."""

    __slots__ = ("_operation", "_row", "_run")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._run: Running | None = None
        self._row: Any = None

    @property
    def report(self) -> Profile | None:
        """What the last block cost, None before the first has ended."""
        return self._operation.profile_of(self._row) if self._row is not None else None

    def __enter__(self) -> Self:
        if self._run is not None:
            name = self._operation.name
            raise RuntimeError(
                f"this profile of {name!r} is measuring a block already: call profile({name!r}) for each"
            )
        self._run = self._operation.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run, self._run = self._run, None
        assert run is not None
        if run.thread != get_ident():
            run.cpu = None
        self._row = self._operation.end(run, failure(error))

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Measure every call of `function`; of a generator, what is spent inside of it until it ends.

        Raises:
            TypeError: it is no function, or asynchronous: what happens between its steps is not its own.
        """
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if not callable(function):
            raise TypeError(f"profile measures functions, not {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"profile measures threads; {_called(function)} is asynchronous")
        if inspect.isgeneratorfunction(function):
            return cast("Callable[P, R]", _generating(self._operation, function))
        return functools.wraps(function)(self._operation.measured(function))


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


def _generating(operation: Operation, function: Any) -> Any:
    @functools.wraps(function)
    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        run = operation.begin()
        try:
            value = yield from _stepwise(operation, run, function(*args, **kwargs))
        except BaseException as error:
            operation.end(run, failure(error))
            raise
        operation.end(run)
        return value

    return generate


def _stepwise(operation: Operation, run: Running, inner: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do as `yield from inner` does (PEP 380), with the run paused while others have the control."""
    step: Callable[[Any], Any] = inner.send
    argument: Any = None
    while True:
        try:
            value = step(argument)
        except StopIteration as stop:
            return stop.value
        operation.pause(run)
        try:
            step, argument = inner.send, (yield value)
        except GeneratorExit:
            operation.resume(run)
            inner.close()
            raise
        except BaseException as error:
            step, argument = inner.throw, error
        operation.resume(run)
