"""How a process of esexec runs its loop: on uvloop where that is installed, with a collector that looks less often.

Nearly all that the engine makes dies young and by reference count; the default thresholds have the collector look at every
live state again and again. Programs that embed esexec keep their own settings: nothing here happens on import.
"""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_NEW_OBJECTS = 50_000


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end as the main task of this process, and give its result."""
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
