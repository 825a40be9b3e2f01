from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from perfkit.agents import TOOLS, Tool, load_tool, tool
from perfkit.errors import UnknownNameError


def search(
    query: Annotated[str, "what to look for"],
    kinds: list[str],
    order: Literal["new", "old"] = "new",
    most: int | None = None,
    *,
    deep: bool = False,
    near: dict[str, float] | None = None,
) -> list[str]:
    """Search the shelves."""
    return [f"{query} {kinds} {order} {most} {deep} {near}"]


def test_a_function_is_told_by_its_name_docstring_and_signature() -> None:
    told = load_tool(search).to_dict()
    assert told["type"] == "function"
    assert (told["function"]["name"], told["function"]["description"]) == ("search", "Search the shelves.")
    assert told["function"]["parameters"] == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "what to look for"},
            "kinds": {"type": "array", "items": {"type": "string"}},
            "order": {"enum": ["new", "old"]},
            "most": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "deep": {"type": "boolean"},
            "near": {"anyOf": [{"type": "object"}, {"type": "null"}]},
        },
        "required": ["query", "kinds"],
    }


def test_a_call_is_checked_before_it_is_made() -> None:
    made = load_tool(search)
    assert made.bind('{"query": "a", "kinds": ["b"], "order": "old"}', {})() == ["a ['b'] old None False None"]
    with pytest.raises(ValueError, match=r"'order' must be one of \['new', 'old'\]"):
        made.bind('{"query": "a", "kinds": [], "order": "best"}', {})
    with pytest.raises(TypeError, match="'kinds' must be of type array"):
        made.bind('{"query": "a", "kinds": "b"}', {})


def test_a_model_cannot_give_the_variables_of_the_run() -> None:
    def look(context_variables: dict[str, Any]) -> Any:
        return context_variables

    assert load_tool(look).bind("", {"mine": 1})() == {"mine": 1}
    with pytest.raises(TypeError, match="unknown argument 'context_variables'"):
        load_tool(look).bind('{"context_variables": {}}', {})


def test_the_decorator_names_describes_and_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOOLS, "_entries", {})

    @tool(name="greet", description="Say hello.", timeout=3, register=True)
    def anything(name: str) -> str:
        return f"hello {name}"

    @tool
    def plain() -> None: ...

    assert (anything.name, anything.description, anything.timeout) == ("greet", "Say hello.", 3)
    assert load_tool("greet") is anything
    assert (plain.name, list(TOOLS)) == ("plain", ["greet"])


@pytest.mark.parametrize("path", ["json:dumps_plain", "os.path:basename", "os.path.basename"])
def test_a_dotted_path_is_imported_when_an_agent_is_made(path: str) -> None:
    if path.startswith("json"):
        with pytest.raises(AttributeError, match="dumps_plain"):
            load_tool(path)
        return
    assert load_tool(path).bind('{"p": "a/b"}', {})() == "b"


def test_an_unknown_tool_is_a_key_error_that_names_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOOLS, "_entries", {"search": search})
    assert load_tool("search").name == "search"
    with pytest.raises(UnknownNameError, match="no tool 'serch'; known: search; did you mean 'search'"):
        load_tool("serch")


def test_methods_and_partials_are_tools_too() -> None:
    class Shop:
        def sell(self, item: str, number: int) -> str:
            return f"{number} {item}"

    assert load_tool(Shop().sell).bind('{"item": "a", "number": 2}', {})() == "2 a"
    part = tool(name="one")(functools.partial(Shop().sell, number=1))
    assert part.bind('{"item": "a"}', {})() == "1 a"


async def later() -> None: ...
def many(*args: str) -> None: ...
def odd(what: set[str]) -> None: ...


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(later, "coroutine"), (many, "cannot be given by name"), (odd, "JSON cannot express"), (7, "not 7")],
)
def test_what_cannot_be_a_tool_is_refused(wrong: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        load_tool(wrong)


def test_a_tool_stays_itself() -> None:
    made = load_tool(search)
    assert load_tool(made) is made
    assert isinstance(made, Tool)
