"""An agent: instructions, a model and tools, and the loop between them.

The model is asked, the tools it calls are run, what they return or how they failed is shown to it, until it answers in
words. A run keeps nothing in the agent: what was said and what tools noted down is in its result, so that one agent can
serve many threads, and a conversation goes on by running its messages with one more.
"""

from __future__ import annotations

import contextvars
import json
import logging
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from perfkit._registry import load
from perfkit.agents.tools import Tool, load_tool
from perfkit.clock import SYSTEM_CLOCK
from perfkit.errors import MaxRoundsExceededError
from perfkit.metrics import PerformanceTracker
from perfkit.resilience.cancel import Scope
from perfkit.values import AgentResult, ChatResponse, Usage, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perfkit.clock import Clock

__all__ = ["Agent", "ChatClient"]

log = logging.getLogger("perfkit.agents")


class ChatClient(Protocol):
    """What an agent asks: `perfkit.client`, or anything that can chat as it does."""

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> ChatResponse:
        """Return the answer of a model."""


def _shared_client() -> ChatClient:
    """Return `perfkit.client`: by its name, since it stands above this room, and only when an agent has no other."""
    client: ChatClient = load("perfkit.pipeline:Client").instance()
    return client


class Agent:
    """Answers with a model that may use tools; safe for threads, as a run keeps its state to itself.

    Args:
        name: who asks: the tag `agent` of metrics and usage reports.
        instructions: the system prompt.
        model: model or route; None means `[client] default_model`.
        tools: functions, Tools, registered names or dotted paths; see `perfkit.agents.tool`.
        client: None means `perfkit.client`.
        max_rounds: calls of the model a run may make.
        tool_timeout: seconds a tool may take. It runs in a thread of its own then, which is left alone when it takes
            longer. None: it runs in the caller's thread and takes what it takes, as a tool must that uses the caller's
            database transaction.
        options: further arguments of `client.chat`, such as temperature, max_tokens or provider.
        tracker: gets tool_duration (seconds, by agent, tool and outcome); None means the shared one.
        clock: measures it.

    Raises:
        TypeError, ValueError, UnknownNameError, ImportError: an argument cannot be used, or a tool is not found.
    """

    def __init__(  # noqa: PLR0913 - what makes an agent, the rest by keyword
        self,
        name: str,
        instructions: str = "",
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any] | str] = (),
        client: ChatClient | None = None,
        *,
        max_rounds: int = 10,
        tool_timeout: float | None = 30.0,
        options: Mapping[str, Any] | None = None,
        tracker: PerformanceTracker | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name, self.instructions, self.model = name, instructions, model
        self.tools = tuple(load_tool(tool) for tool in ([tools] if isinstance(tools, str) else tools))
        self.max_rounds = int(finite("max_rounds", max_rounds, least=1))
        self.tool_timeout = None if tool_timeout is None else finite("tool_timeout", tool_timeout, above=0)
        self.options = dict(options) if options is not None else {}
        self._named = {tool.name: tool for tool in self.tools}
        if len(self._named) < len(self.tools):
            raise ValueError(f"two tools of agent {name!r} have one name: {[tool.name for tool in self.tools]}")
        self._client, self._tracker = client, tracker
        self._now = (clock if clock is not None else SYSTEM_CLOCK).now

    @property
    def temperature(self) -> float | None:
        """The temperature it asks with; None means the provider's own."""
        return self.options.get("temperature")

    def run(self, message: str | Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None) -> AgentResult:
        """Return the answer to a message, when the model has used the tools it wanted.

        Args:
            message: the question, or a conversation that ends with one: `[*result.messages, {...}]`.
            context: variables tools can read and change; the mapping itself stays as it is. Whose question it is
                (`user_id`) and what else the answer depends on goes to `client.chat` as its context.

        Raises:
            MaxRoundsExceededError: the model still wants tools after `max_rounds`; its `result` holds what was done.
            PerfkitError: the model could not be asked; see `perfkit.chat`.
        """
        said = [{"role": "user", "content": message}] if isinstance(message, str) else list(message)
        run = _Run(said, dict(context) if context is not None else {})
        schemas = [tool.to_dict() for tool in self.tools] or None
        client = self._client if self._client is not None else _shared_client()
        system = [{"role": "system", "content": self.instructions}] if self.instructions else []
        for _ in range(self.max_rounds):
            answer = client.chat(
                [*system, *run.messages],
                model=self.model,
                tools=schemas,
                agent=self.name,
                context=context,
                **self.options,
            )
            run.heard(answer)
            if not answer.tool_calls:
                return run.result()
            for call in answer.tool_calls:
                run.messages.append(self._answered(call, run.variables))
        raise MaxRoundsExceededError(
            f"agent {self.name!r} still wants tools after {self.max_rounds} rounds; raise max_rounds=, or see"
            " error.result.messages for what it keeps asking",
            result=run.result(),
        )

    def _answered(self, call: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Run the tool of a call; return the message that shows what came of it."""
        wanted = call["function"]
        tracker = self._tracker if self._tracker is not None else PerformanceTracker.instance()
        began, outcome = self._now(), "ok"
        try:
            content = _written(self._use(wanted["name"], wanted.get("arguments", ""), variables))
        except Exception as error:
            outcome = type(error).__name__
            log.warning("tool %r of agent %r failed: %s", wanted["name"], self.name, outcome, exc_info=True)
            content = f"Error: {outcome}: {error}"
        known = wanted["name"] if wanted["name"] in self._named else "unknown"
        tags = {"agent": self.name, "tool": known, "outcome": outcome}
        tracker.record_metric("tool_duration", self._now() - began, tags)
        return {"role": "tool", "tool_call_id": call.get("id", ""), "content": content}

    def _use(self, name: str, arguments: str, variables: dict[str, Any]) -> Any:
        found = self._named.get(name)
        if found is None:
            raise LookupError(f"there is no tool {name!r}; there are: {', '.join(self._named) or 'none'}")
        call = found.bind(arguments, variables)
        timeout = found.timeout if found.timeout is not None else self.tool_timeout
        return call() if timeout is None else _bounded(call, name, timeout)

    def __repr__(self) -> str:
        return f"Agent({self.name!r}, model={self.model!r}, tools={list(self._named)})"


class _Run:
    """What one run has come to so far."""

    def __init__(self, messages: list[Any], variables: dict[str, Any]) -> None:
        self.messages, self.variables = messages, variables
        self._answers: list[ChatResponse] = []

    def heard(self, answer: ChatResponse) -> None:
        """Add an answer of the model."""
        self._answers.append(answer)
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            message |= {"content": answer.text or None, "tool_calls": list(answer.tool_calls)}
        self.messages.append(message)

    def result(self) -> AgentResult:
        """Return it."""
        costs = [answer.cost for answer in self._answers]
        return AgentResult(
            text=self._answers[-1].text,
            messages=tuple(self.messages),
            usage=Usage.total([answer.usage for answer in self._answers]),
            context_variables=self.variables,
            cost=None if None in costs else sum(cost for cost in costs if cost is not None),
            rounds=len(self._answers),
        )


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _bounded(call: Callable[[], Any], name: str, timeout: float) -> Any:
    """Return what `call` returns in a thread of its own; after `timeout` drop the connections it waits for."""
    outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    scope = Scope()

    def work() -> None:
        try:
            with scope:
                outcome.put((call(), None))
        except BaseException as error:  # for the caller, whatever it is
            outcome.put((None, error))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=f"perfkit-tool-{name}", daemon=True).start()
    try:
        value, error = outcome.get(timeout=timeout)
    except Empty:
        scope.cancel()
        raise TimeoutError(f"{name} gave no result within {timeout:g} s") from None
    if error is not None:
        raise error
    return value
