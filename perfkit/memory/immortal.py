"""Objects whose references nobody counts any more, so that workers leave inherited pages alone.

To use an object is to count a reference to it, which is a write, and the first write to a page copies it. From Python
3.12 on, objects with a certain count are never written to, and never freed (PEP 683). 3.12 and 3.13 have no function
that gives an object this count, so it is written where they keep it.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
import weakref
from typing import Any

__all__ = ["make_immortal", "possible"]

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
                todo += [other for other in gc.get_referents(one) if not gc.is_tracked(other)]
    return count
