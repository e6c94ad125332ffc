"""Telemetry: functions of yours that are called in the worker process when a handler begins and ends, and at moments of your own.

A hook is called as `fn(event, measurements, metadata, config)`; both dictionaries are its own, and of the engine's events all
that stands in them. These events there are, one `exec.start` for every handler that is called, and later one of the others:

- `exec.start`: `system_time` (seconds since 1970) and `monotonic_time` (seconds) are its measurements.
- `exec.stop`: the handler did its work, and `duration` (seconds) and `duration_ms` say how long it took.
- `exec.exception`: it did not. The same measurements; the metadata also has `error` (an `ErrorInfo`) and `kind`: `error` (it
  raised), `timeout`, `cancelled` (it was told to stop), or `handed_back` (its worker ended, and another begins it again).

Metadata of all three: `task` (also as `action`), `params`, `execution_id`, `step`, `attempt`, `run`, `worker`, and `purpose`:
`task`, `fallback`, `compensation` or `recovery`. Names of your own have a dot and do not begin with `exec.`; they are told by
`execute`.

Hooks belong to the process. They are called where things happen, one after the other, and waited for: what takes time, they hand
on. They change nothing: one that throws is detached, with one warning. All of this may be called from any thread.
"""

# What always holds: `_hooks` and what follows from it are replaced, never changed, so that whoever reads them needs no lock.
# No lock is held while a hook, or anything else that is not ours, is called.

import inspect
import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean, quoted

__all__ = ["EVENTS", "HookFunction", "attach", "detach", "execute"]

logger = logging.getLogger("esexec.telemetry")

EVENTS = ("exec.start", "exec.stop", "exec.exception")
"""What the engine tells."""

HookFunction = Callable[[str, dict[str, Any], dict[str, Any], Any], object]
"""Called with the event's name, its measurements, its metadata, and the `config` of `attach`. Nobody looks at what it returns."""

_OWN = re.compile(r"(?!(?i:exec)\.)[A-Za-z_][\w-]*(\.[\w-]+)+", re.ASCII)


class Hook:
    """What was attached under an id. `warned`: it threw, and that was said."""

    __slots__ = ("config", "events", "fn", "id", "warned")

    def __init__(self, id: str, events: frozenset[str], fn: HookFunction, config: Any) -> None:
        self.id, self.events, self.fn, self.config = id, events, fn, config
        self.warned = False


_changing = threading.Lock()
_hooks: dict[str, Hook] = {}
of_attempts: tuple[Hook, ...] = ()
"""Those that hear of attempts. Workers look here: nothing is made for hooks that are not there."""


def attach(id: str, events: str | Iterable[str], fn: HookFunction, config: Any = None) -> None:
    """Call `fn(event, measurements, metadata, config)` at these events (one name, or several) until `detach(id)`.

    Of attempts it hears of those that begin from now on. Raises ValidationError: `unknown_telemetry_event`, `duplicate_hook`
    (the id is taken), `invalid_hook` (no id, no events, or an `fn` that is async, or does not
    take four arguments).
    """
    names = [events] if isinstance(events, str) else list(events) if isinstance(events, Iterable) else []
    if not isinstance(id, str) or not id or not names:
        raise ValidationError("a hook needs an id, and events to hear of", code="invalid_hook", hint="attach(id, events, fn)")
    if not callable(fn) or inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
        raise ValidationError(f"{quoted(fn)} cannot be a hook", code="invalid_hook", hint="give a function that is not async")
    if not _takes_four(fn):
        hint = "it is called as fn(event, measurements, metadata, config)"
        raise ValidationError(f"{quoted(fn)} does not take what a hook is given", code="invalid_hook", hint=hint)
    for name in names:
        if name not in EVENTS and not _is_own(name):
            meant = did_you_mean(name, EVENTS) or ""
            raise _unknown(
                name, f"{meant}{'' if meant.endswith('?') else '.'} A name of your own has a dot, and does not begin with `exec.`"
            )
    hook = Hook(id, frozenset(names), fn, config)
    with _changing:
        if id in _hooks:
            raise ValidationError(f"a hook {quoted(id)} is attached", code="duplicate_hook", hint="detach it, or take another id")
        _replace({**_hooks, id: hook})


def detach(id: str) -> bool:
    """Call it no more: True if there was such a hook. One that is being called just now, in another thread, may yet end."""
    with _changing:
        if id not in _hooks:
            return False
        _replace({known: hook for known, hook in _hooks.items() if known != id})
        return True


def execute(event: str, measurements: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> None:
    """Tell an event of your own (`my_app.image_resized`) to the hooks that are attached to it, here and now.

    Raises ValidationError (`unknown_telemetry_event`) for a name that cannot be one, whether somebody listens or not.
    """
    if not _is_own(event):
        raise _unknown(event, "a name of your own has a dot, as my_app.image_resized, and does not begin with `exec.`")
    if hooks := _hooks:
        tell(hooks.values(), event, measurements, metadata or {})


def tell(
    hooks: Iterable[Hook],
    event: str,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    copied: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Call those of the hooks that are attached to the event, still. Nothing that they do comes back.

    `copied`: makes of the metadata those that are a hook's own.
    """
    for hook in hooks:
        if event in hook.events and _hooks.get(hook.id) is hook:
            try:
                hook.fn(event, dict(measurements), copied(metadata), hook.config)
            except BaseException as error:  # also `sys.exit()`: it would end a worker, or the handler that is told of
                _threw(hook, event, error)


def _threw(hook: Hook, event: str, error: BaseException) -> None:
    with _changing:
        if _hooks.get(hook.id) is hook:  # else it is detached, and the id may be another's
            _replace({id: other for id, other in _hooks.items() if other is not hook})
        if hook.warned:
            return
        hook.warned = True
    try:
        logger.warning("hook %r threw at %s, and is detached: %r", hook.id, event, error, exc_info=error)
    except RecursionError:  # it tells itself of itself: there is room for the warning further up
        hook.warned = False
        raise


def _replace(hooks: dict[str, Hook]) -> None:
    global _hooks, of_attempts
    _hooks = hooks
    of_attempts = tuple(hook for hook in hooks.values() if not hook.events.isdisjoint(EVENTS))


def _takes_four(fn: Callable[..., object]) -> bool:
    """Whether it can be called with four arguments; of what does not say what it takes, that is believed."""
    try:
        inspect.signature(fn).bind(*range(4))
    except ValueError:  # written in C
        return True
    except TypeError:
        return False
    return True


def _is_own(name: object) -> bool:
    return isinstance(name, str) and len(name) <= limits.name_chars and _OWN.fullmatch(name) is not None


def _unknown(name: object, hint: str) -> ValidationError:
    return ValidationError(f"{quoted(name)} is no event of telemetry", code="unknown_telemetry_event", hint=hint)
