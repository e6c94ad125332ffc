"""`@task(cache=Cache(…))`: outputs that serve again, for whom, and for how long.

A cached result is found by a hash of the task's name, the cache's version and the key's value as canonical JSON. What the key
leaves out must not matter to the output.
"""

import hashlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from esexec.domain import limits
from esexec.domain.durations import milliseconds
from esexec.domain.errors import EsexecError, ExecutionError, ValidationError
from esexec.domain.explain import did_you_mean
from esexec.tasks.options import Duration
from esexec.tasks.outputs import Kept, encode_value

_KEY = Kept("cache key", "cache_key", limits.cache_key_bytes, "cache_key_bytes")
_canonical = msgspec.json.Encoder(order="sorted").encode

Key = Callable[..., Any] | Sequence[str] | None


class Cache:
    """Successful outputs of a task are kept in the namespace, and serve in place of its handler where the key is the same.

    `key`: None, all params; names of params; or a function of one argument `params`, the params as they were given, or of
    parameters of the task by name; a task without such parameters is refused. `ttl`: how long a result serves (None: until there
    is no room for it). `version`: another one finds nothing of the ones before. Raises ValidationError (`invalid_cache`,
    `invalid_duration`).
    """

    __slots__ = ("_all_params", "_names", "_needed", "key", "ttl_ms", "version")

    def __init__(self, key: Key = None, ttl: Duration | None = None, *, version: str | int = "") -> None:
        if not (key is None or callable(key) or _are_names(key)):
            raise ValidationError(
                f"{key!r:.80} is no key",
                code="invalid_cache",
                hint='key=lambda params: …, key=["city"], or nothing for all params',
            )
        self.key, self.version = key, str(version)
        self.ttl_ms = milliseconds(ttl, name="ttl") if ttl is not None else 0
        """0: no end."""
        self._names: tuple[str, ...] | None = None
        self._all_params = False
        self._needed: tuple[str, ...] = ()
        """What a task must have parameters for."""
        if callable(key):
            self._read_signature(key)
        elif key is not None:
            self._needed = tuple(key)

    def _read_signature(self, key: Callable[..., Any]) -> None:
        parameters = inspect.signature(key).parameters.values()
        if [one.name for one in parameters] == ["params"]:
            self._all_params = True
            return
        if not any(one.kind is one.VAR_KEYWORD for one in parameters):
            self._names = tuple(one.name for one in parameters)
        self._needed = tuple(one.name for one in parameters if one.default is one.empty and one.kind is not one.VAR_KEYWORD)

    def check(self, task: str, parameters: Collection[str]) -> None:
        """Whether a task with these parameters has what the key names. Raises ValidationError (`invalid_cache`)."""
        for name in self._needed:
            if name not in parameters:
                hint = did_you_mean(name, parameters) or "names of its parameters"
                raise ValidationError(
                    f"task `{task}`: its cache's key names `{name}`, which is no parameter of it", code="invalid_cache", hint=hint
                )

    def hash_of(self, task: str, params: Any, arguments: Callable[[], Mapping[str, Any]]) -> str:
        """What the result for these params is found by. `arguments`: gives them by name and converted, if the key asks for that.

        Raises ExecutionError (`invalid_cache_key`, …) for a key without a JSON form, and what a key function raises.
        """
        value = self._value(params if params is not None else {}, arguments)
        try:
            data = msgspec.json.decode(encode_value(value, _KEY))
        except EsexecError as error:
            raise ExecutionError(error.message, code="invalid_cache_key", retry=False, hint=error.hint) from error
        return hashlib.sha256(_canonical([task, self.version, data])).hexdigest()

    def _value(self, params: Any, arguments: Callable[[], Mapping[str, Any]]) -> Any:
        key = self.key
        if key is None:
            return params
        if not callable(key):
            return {name: params[name] for name in key if name in params}
        if self._all_params:
            return key(params)
        found = arguments()
        if self._names is not None:
            found = {name: found[name] for name in self._names if name in found}
        return key(**found)

    def __repr__(self) -> str:
        return f"Cache(key={self.key!r}, ttl_ms={self.ttl_ms}, version={self.version!r})"


def _are_names(key: Any) -> bool:
    return isinstance(key, list | tuple) and all(isinstance(name, str) for name in key)
