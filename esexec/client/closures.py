"""Calls that are prepared: a task or plan with params and options that need not be said again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Unpack

import msgspec

from esexec.client.commands import Startable, StartOptions
from esexec.client.handle import Starting
from esexec.domain.errors import ValidationError
from esexec.domain.explain import quoted
from esexec.plans import Duration
from esexec.results import T
from esexec.tasks.foreign import enc_hook

if TYPE_CHECKING:
    from esexec.client.client import Client


class _Prepared(Generic[T]):
    """What is called, and what is said already."""

    def __init__(self, client: "Client", what: Startable[T], preset: Any, options: StartOptions) -> None:
        self._client, self._what, self._preset, self._options = client, what, _object(preset), options

    def _params(self, params: Any) -> dict[str, Any]:
        """The params of one call, over the preset ones."""
        return {**self._preset, **_object(params)}

    def _said(self, options: StartOptions) -> StartOptions:
        return {**self._options, **options}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._what!r}>"


class Closure(_Prepared[T]):
    """`output = await closure(params)`: see `Client.closure`."""

    def __init__(
        self, client: "Client", what: Startable[T], preset: Any, wait_timeout: Duration | None, options: StartOptions
    ) -> None:
        super().__init__(client, what, preset, options)
        self._wait_timeout = wait_timeout

    async def __call__(self, params: Any = None, **options: Unpack[StartOptions]) -> T:
        """Call it with these params over those that it has, and these options over those. Raises as `Client.run`."""
        said = self._said(options)
        return await self._client.run(self._what, self._params(params), wait_timeout=self._wait_timeout, **said)


class AsyncClosure(_Prepared[T]):
    """`handle = await closure(params)`: see `Client.async_closure`."""

    def __call__(self, params: Any = None, **options: Unpack[StartOptions]) -> Starting[T]:
        """Start it with these params over those that it has, and these options over those. See `Client.start`."""
        return self._client.start(self._what, self._params(params), **self._said(options))


def _object(params: Any) -> dict[str, Any]:
    """Params as an object. Raises ValidationError (`bad_params`)."""
    if params is None:
        return {}
    found = params if isinstance(params, Mapping) else msgspec.to_builtins(params, enc_hook=enc_hook)
    if not isinstance(found, Mapping):
        raise ValidationError(f"{quoted(params)} is no params", code="bad_params", hint="give an object: values by name")
    return dict(found)
