"""The user's own word on errors, for all tasks of a process."""

import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec

logger = logging.getLogger("esexec.failures")


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """What a classifier says of an error; None leaves the answer to whoever is asked next.

    `retry_after`: seconds to wait before the next attempt instead of the back-off.
    """

    retry: bool | None = None
    code: str | None = None
    retry_after: float | None = None


Classifier = Callable[[BaseException], bool | Classification | None]
C = TypeVar("C", bound=Classifier)

NOTHING_SAID = Classification()

_classifiers: tuple[Classifier, ...] = ()
_warned: set[Classifier] = set()


def classifier(fn: C) -> C:
    """Register a function that says of an exception whether to retry: True, False, a `Classification`, or None (pass).

    It is asked for every failure of a handler that does not say `retry=` itself; the one registered last is asked first.
    """
    global _classifiers
    remove_classifier(fn)
    _classifiers = (fn, *_classifiers)
    return fn


def remove_classifier(fn: Classifier) -> None:
    """Ask `fn` no longer. Does nothing if it was not registered."""
    global _classifiers
    _classifiers = tuple(other for other in _classifiers if other is not fn)
    _warned.discard(fn)


def classify(error: BaseException) -> Classification:
    """The first answer that is not None. A classifier that fails, or answers nonsense, counts as one that passed."""
    for fn in _classifiers:
        try:
            answer = fn(error)
        except Exception as trouble:
            _warn(fn, f"raised {type(trouble).__name__}", trouble)
            continue
        if isinstance(answer, bool):
            return Classification(retry=answer)
        if isinstance(answer, Classification):
            return answer
        if answer is not None:
            _warn(fn, f"answered {type(answer).__name__}, not bool, None or Classification", None)
    return NOTHING_SAID


def _warn(fn: Classifier, what: str, trouble: Exception | None) -> None:
    """Once per classifier: it would otherwise say the same for every failure."""
    if fn in _warned:
        return
    _warned.add(fn)
    name = getattr(fn, "__qualname__", type(fn).__qualname__)
    logger.warning("classifier %s %s; it is passed over (logged once)", name, what, exc_info=trouble)
