"""Write docs/reference.md from the docstrings of the public names: python docs/reference.py, after changing one."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

FILE = Path(__file__).with_name("reference.md")
MODULES = ("perfkit", "perfkit.bench", "perfkit.dashboard", "perfkit.testing", "perfkit.integrations.wsgi")
HEAD = """# API reference

Made from the docstrings by `python docs/reference.py`; a test tells when it is not current. Seconds, bytes, US dollars
and tokens, unless a name says otherwise.
"""
_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"^    (\*{0,2}[\w, .*]+): ?(.*)$")


def document() -> str:
    """Return the whole reference."""
    return "\n".join([HEAD, *(part for name in MODULES for part in _module(name))]).rstrip() + "\n"


def _module(name: str) -> Iterator[str]:
    module = resolve_name(name)
    yield f"## {name}\n\n{_text(inspect.getdoc(module) or '')}\n"
    shared = []
    for public in sorted(module.__all__, key=str.lower):
        value = getattr(module, public)
        if inspect.isclass(value):
            yield from _class(public, value)
        elif inspect.isfunction(value):
            yield f"### {public}\n\n`{public}{_signature(value)}`\n\n{_text(inspect.getdoc(value) or '')}\n"
        else:
            shared.append((public, value))
    if shared:
        yield "### Shared objects and constants of " + name + "\n"
        yield from (f"- `{public}`: {_what(value)}" for public, value in shared)
        yield ""


def _what(value: Any) -> str:
    if inspect.ismethod(value):
        return f"`{type(value.__self__).__name__}.{value.__name__}` of the shared instance"
    if inspect.ismodule(value):
        return f"the module `{value.__name__}`"
    return f"`{type(value).__name__}`"


def _class(name: str, cls: type[Any]) -> Iterator[str]:
    doc = inspect.getdoc(cls) or ""
    if doc.startswith(f"{name}("):  # what dataclasses write by themselves
        doc = ""
    made = "" if issubclass(cls, BaseException) else f"`{name}{_signature(cls)}`\n\n"
    yield f"### {name}\n\n{made}{_text(doc)}\n"
    for public in sorted(public for public in dir(cls) if not public.startswith("_")):
        member = inspect.getattr_static(cls, public)
        if not _is_ours(cls, public):
            continue
        if isinstance(member, property):
            yield f"- `{public}`: {_first(inspect.getdoc(member) or '')}"
        elif isinstance(member, staticmethod | classmethod) or inspect.isfunction(member):
            called = getattr(cls, public)
            yield f"- `{public}{_signature(called)}`: {_first(inspect.getdoc(called) or '')}"
    yield ""


def _is_ours(cls: type[Any], name: str) -> bool:
    return any(name in base.__dict__ and base.__module__.startswith("perfkit") for base in cls.__mro__)


class _Plain(str):
    """An annotation that is shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(value: Callable[..., Any]) -> str:
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "()"
    shown = [one.replace(annotation=_shown(one.annotation)) for one in found.parameters.values() if one.name != "self"]
    whole = str(found.replace(parameters=shown, return_annotation=_shown(found.return_annotation)))
    whole = re.sub(
        r"\{('[^{}]*)\}", lambda found: f"{{{', '.join(sorted(found[1].split(', ')))}}}", whole
    )  # a set's order
    return re.sub(r" at 0x[0-9a-f]+", "", whole).removesuffix(" -> None")


def _shown(annotation: Any) -> Any:
    return _Plain(annotation) if isinstance(annotation, str) else annotation


def _first(doc: str) -> str:
    return " ".join(doc.partition("\n\n")[0].split())


def _text(doc: str) -> str:
    """Return a Google-style docstring as Markdown: its sections become lists."""
    lines: list[str] = []
    inside = False
    for line in doc.splitlines():
        if _SECTION.match(line):
            inside = True
            lines += [f"**{line.removesuffix(':')}**", ""]
        elif inside and (entry := _ENTRY.match(line)):
            lines.append(f"- `{entry[1]}`: {entry[2]}")
        elif inside and line.startswith("        "):
            lines.append(f"  {line.strip()}")
        else:
            inside = inside and not line
            lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    FILE.write_text(document())
    print(f"{FILE.name}: {len(document().splitlines())} lines")
