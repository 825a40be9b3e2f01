"""Objects whose references nobody counts any more, so that workers leave inherited pages alone.

To use an object is to count a reference to it, which is a write, and the first write to a page copies it. From Python
3.12 on, objects with a certain count are never written to, and never freed (PEP 683). 3.12 and 3.13 have no function
that gives an object this count, so it is written where they keep it. 3.11 can but forget what it has looked up.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
import types
import weakref
from typing import Any

__all__ = ["forget_lookups", "make_immortal", "possible"]

_COUNT = 0xFFFF_FFFF  # _Py_IMMORTAL_REFCNT, Include/object.h; objects begin with their count
_PYTHONS = ((3, 12), (3, 13))


def possible() -> bool:
    """Tell whether this Python keeps counts where and as we know it."""
    odd = any(sysconfig.get_config_var(name) for name in ("Py_GIL_DISABLED", "Py_DEBUG", "Py_TRACE_REFS"))
    regular = sys.implementation.name == "cpython" and sys.maxsize > 2**32 and not odd
    return regular and sys.version_info[:2] in _PYTHONS


def _mortal(one: Any) -> bool:
    """Tell whether somebody waits for the end of an object: its own finaliser, or a weak reference."""
    return hasattr(type(one), "__del__") or (not isinstance(one, type) and weakref.getweakrefcount(one) > 0)


def _held(one: Any) -> list[Any]:
    """Return what an object refers to; code does not tell the collector of its constants and names."""
    if isinstance(one, types.CodeType):
        return [one.co_consts, one.co_names, one.co_name, one.co_qualname]
    return gc.get_referents(one)


def make_immortal() -> int | None:
    """Make all that lives now, and is not frozen, immortal; return how many objects that were, None if not possible.

    Files, sockets, generators and all else that has a finaliser or a weak reference to it stay as they are.
    """
    if not possible():
        return None
    count = 0
    for root in gc.get_objects():
        todo = [root]
        while todo:
            one = todo.pop()
            if sys.getrefcount(one) < _COUNT and not _mortal(one):
                ctypes.c_uint32.from_address(id(one)).value = _COUNT
                count += 1
                todo += [other for other in _held(one) if not gc.is_tracked(other)]
    return count


def forget_lookups() -> None:
    """Empty the interpreter's cache of attributes looked up on types, where each name in it has its reference counted.

    A child would write to the names of its parent's lookups as its own take their place. Nothing but Python 3.11 gains.
    """
    if sys.version_info < (3, 12):
        sys._clear_type_cache()  # noqa: SLF001 - documented with the module, whatever its name
