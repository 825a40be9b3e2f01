"""Tools a model may call: plain functions, told to it by name, docstring and signature.

What the model sends is checked against the signature before the function runs, and whatever goes wrong becomes text
for the model, which can then try otherwise. Tools are given as functions, as registered names or as dotted paths, so
that a configuration file can name them.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, overload

from perfkit._registry import Registry, load
from perfkit.errors import UnknownNameError
from perfkit.values import finite

if typing.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CONTEXT", "TOOLS", "Tool", "load_tool", "tool"]

CONTEXT = "context_variables"  # a parameter of this name gets the run's variables; the model never sees it
TOOLS = Registry("tool", {})  # name to function, Tool or "module:function"

_TYPES: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object", None: "null",
    type(None): "null", collections.abc.Sequence: "array", collections.abc.Mapping: "object",
}  # fmt: skip
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function with what a model needs to know to call it.

    Attributes:
        name: what the model calls it.
        description: when to use it and what it returns.
        parameters: JSON schema of its arguments.
        function: called with them by name.
        timeout: seconds a call may take; None means what the agent says.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]
    timeout: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the schema in OpenAI's form, as `chat(tools=...)` takes it."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": told}

    def bind(self, arguments: str, variables: dict[str, Any]) -> Callable[[], Any]:
        """Return the call a model asked for, checked and not yet made.

        Args:
            arguments: a JSON object, as the model wrote it.
            variables: of the run, for functions with a parameter `context_variables`.

        Raises:
            ValueError: it is no JSON object.
            TypeError: an argument is missing, unknown or of the wrong type.
        """
        given = json.loads(arguments or "{}")
        if not isinstance(given, dict):
            raise TypeError(f"arguments must be a JSON object, not {given!r}")
        for name, value in given.items():
            self._check(name, value)
        signature = inspect.signature(self.function)
        own = {CONTEXT: variables} if CONTEXT in signature.parameters else {}
        bound = signature.bind(**given, **own)
        return lambda: self.function(*bound.args, **bound.kwargs)

    def _check(self, name: str, value: Any) -> None:
        told = self.parameters.get("properties", {})
        if name not in told:
            raise TypeError(f"unknown argument {name!r}; known: {', '.join(told) or 'none'}")
        wanted = told[name].get("type")
        fitting = _PYTHON.get(wanted) if isinstance(wanted, str) else None
        confused = isinstance(value, bool) and wanted != "boolean"  # a bool is an int in Python, not in JSON
        if fitting is not None and (confused or not isinstance(value, fitting)):
            raise TypeError(f"argument {name!r} must be of type {wanted}, not {value!r}")
        if value not in told[name].get("enum", [value]):
            raise ValueError(f"argument {name!r} must be one of {told[name]['enum']}, not {value!r}")


@overload
def tool(function: Callable[..., Any]) -> Tool: ...
@overload
def tool(
    *, name: str | None = ..., description: str | None = ..., timeout: float | None = ..., register: bool = ...
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    register: bool = False,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a function a Tool, as a decorator with or without arguments.

    Its parameters are described by their annotations: str, int, float, bool, list, dict, Literal, `X | None`, and
    Annotated with a text that says what it is. A parameter `context_variables` gets the variables of the run.

    Args:
        function: returns text, or anything JSON can express.
        name: what the model calls it; None means the function's name.
        description: None means its docstring.
        timeout: seconds a call may take; None means what the agent says.
        register: make it known by its name, for `tools=["name"]` and configuration files.

    Raises:
        TypeError: it is a coroutine function, or a parameter cannot be expressed in JSON or given by name.
        ValueError: `timeout` is not above 0.
    """
    if function is None:
        return lambda given: tool_of(given, name, description, timeout, register=register)
    return tool_of(function, name, description, timeout, register=register)


def tool_of(
    function: Callable[..., Any],
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    *,
    register: bool = False,
) -> Tool:
    """Return the Tool of a function; see `tool`."""
    called = name if name is not None else getattr(function, "__name__", type(function).__name__)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"tool {called!r} is a coroutine function; agents call plain functions")
    if timeout is not None:
        finite(f"timeout of tool {called!r}", timeout, above=0)
    told = description if description is not None else inspect.getdoc(function) or ""
    made = Tool(
        name=called, description=told, parameters=_parameters(called, function), function=function, timeout=timeout
    )
    if register:
        TOOLS.register(called, made)
    return made


def _parameters(called: str, function: Callable[..., Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        if name == CONTEXT:
            continue
        if parameter.kind not in _NAMED:
            raise TypeError(f"parameter {parameter} of tool {called!r} cannot be given by name")
        properties[name] = _schema(parameter.annotation, f"parameter {name!r} of tool {called!r}")
        if parameter.default is parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """Return the JSON schema of an annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return {}
    if origin is Annotated:
        text = next((note for note in inner[1:] if isinstance(note, str)), None)
        return _schema(inner[0], where) | ({"description": text} if text is not None else {})
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one, where) for one in inner]}
    kind = _TYPES.get(origin if origin is not None else hint)
    if kind is None:
        raise TypeError(f"{where} is {hint!r}, which JSON cannot express")
    return {"type": kind, "items": _schema(inner[0], where)} if kind == "array" and inner else {"type": kind}


def load_tool(given: Tool | Callable[..., Any] | str) -> Tool:
    """Return a Tool for a Tool, a function, a registered name, or a path such as "shop.tools:search".

    Raises:
        UnknownNameError: nothing is registered by that name, and it is no path.
        ImportError, AttributeError: the path leads nowhere.
        TypeError: it is no function, or one that cannot be a tool.
    """
    found: Any = given
    if isinstance(given, str):
        found = TOOLS.get(given) if given in TOOLS else _by_path(given)
    if isinstance(found, Tool):
        return found
    if not callable(found):
        raise TypeError(f"a tool is a function or the name of one, not {found!r}")
    return tool_of(found)


def _by_path(path: str) -> Any:
    if ":" in path:
        return load(path)
    module, _, attribute = path.rpartition(".")
    if not module:
        raise UnknownNameError.of("tool", path, TOOLS)
    return load(f"{module}:{attribute}")
