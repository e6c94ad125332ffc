"""Who wins: arguments, `ESEXEC_*`, variables of the `nats` program, the file of the project, the selected context, the defaults.

Key by key, but for two things. Ways to prove who we are exclude each other: the strongest level that names one decides which. And
a context is taken as a whole, at the level that names it: where a server is named more strongly, nothing of it is used, so that
no password is sent to a server that it is not for.
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from esexec.configuration import contexts, files
from esexec.configuration.keys import KEYS, TLS, WAYS, Key, Wrong, user_in
from esexec.domain.errors import ValidationError
from esexec.domain.explain import shown
from esexec.nats.address import Auth, redacted

DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"
ARGUMENT, OWN, NATS, FILE, SELECTED, DEFAULT = range(6)
"""The levels, the strongest first."""


class Setting(NamedTuple):
    """A value, how strongly it is said, and where: `argument`, `$NATS_URL`, `pyproject.toml:12`, `context prod`, `default`."""

    key: str
    value: Any
    level: int
    origin: str

    @property
    def shown(self) -> str | None:
        """The value without its secrets; None: there is none."""
        if self.value is None or self.value == ():
            return None
        if KEYS[self.key].is_secret:
            return "***"
        return redacted(self.value) if self.key == "server" else ", ".join(self.value) if self.key == "tasks" else str(self.value)


@dataclass(frozen=True)
class Configuration:
    """See the module. `settings`: by key, all of them; `tls`: an SSL context that was given as it is."""

    settings: Mapping[str, Setting]
    tls: ssl.SSLContext | None = None

    def __getitem__(self, key: str) -> Any:
        """The value of a setting; None: there is none."""
        return self.settings[key].value

    @property
    def embeds(self) -> bool:
        """Whether the server on the store is meant: none is named, or the store is more strongly."""
        server, store = self.settings["server"], self.settings["store"]
        return server.value is None or store.level < server.level

    @property
    def url(self) -> str:
        """The server, for whoever has none of its own."""
        return self["server"] or DEFAULT_SERVER

    @property
    def auth(self) -> Auth:
        """How to prove who we are at the server. Raises ValidationError (`bad_setting`) for certificates that cannot be read."""
        names = ("user", "password", "token", "credentials", "nkeys_seed", "tls_hostname", "inbox_prefix")
        said: dict[str, Any] = {name: self[name] for name in names if self[name] is not None}
        if (tls := self.tls or self._tls()) is not None:
            said["tls"] = tls
        auth: Auth = Auth(**said)  # type: ignore[typeddict-item]
        return auth

    def _tls(self) -> ssl.SSLContext | None:
        ca, cert, key = (self[name] for name in TLS)
        if ca is None and cert is None and key is None:
            return None
        about = "tls_ca"
        try:
            context = ssl.create_default_context(cafile=ca)
            if cert is not None or key is not None:
                about = "tls_cert" if cert is not None else "tls_key"
                if cert is None:
                    raise Wrong("there is a key, and no certificate", "name it in tls_cert")
                context.load_cert_chain(cert, key)
        except (OSError, Wrong) as error:  # ssl.SSLError is an OSError
            raise _bad(self.settings[about], str(error), getattr(error, "hint", None)) from None
        return context


def configuration(
    given: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Configuration:
    """What holds for what was `given` as arguments (None and absent: not given), in this environment and directory.

    Raises ValidationError: `bad_setting`, `unknown_setting`, `bad_settings_file`, `unknown_context`, `bad_context`.
    """
    environ = os.environ if environ is None else environ
    arguments = {key: value for key, value in (given or {}).items() if value is not None and value != ()}
    tls = arguments.pop("tls", None)
    found = [*_of_arguments(arguments), *_of_environment(environ), *_of_file(directory or Path.cwd())]
    found += _of_context(found, environ)
    found.sort(key=lambda one: one.level)
    if tls is not None:
        found = [one for one in found if one.key not in TLS]
    best: dict[str, Setting] = {}
    for one in found:
        best.setdefault(one.key, one)
    _one_way(best)
    defaults = {key.name: Setting(key.name, key.default, DEFAULT, "default") for key in KEYS.values()}
    return Configuration({name: best.get(name, default) for name, default in defaults.items()}, tls)


def mistaken(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that look like ours and are none, and which are meant. No error: an orchestrator may set what it likes."""
    import difflib

    known = [key.variable for key in KEYS.values()]
    for name in sorted(environ):
        if name.startswith("ESEXEC_") and name not in known and (near := difflib.get_close_matches(name, known, 1, 0.85)):
            yield name, near[0]


def _of_arguments(given: Mapping[str, Any]) -> Iterator[Setting]:
    for name, value in given.items():
        yield Setting(name, value, ARGUMENT, "argument")  # whoever takes it says what is wrong with it


def _of_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    for key in KEYS.values():
        for level, variable in ((OWN, key.variable), *((NATS, other) for other in key.also)):
            if value := environ.get(variable):
                yield _setting(key, value, level, f"${variable}")


def _of_file(directory: Path) -> Iterator[Setting]:
    if (found := files.find(directory)) is None:
        return
    for name, value in found.said.items():
        key = KEYS[name]
        setting, here = _setting(key, value, FILE, found.place(name)), found.path.parent
        if key.is_path:
            setting = setting._replace(value=here / setting.value)
        elif name == "tasks":
            setting = setting._replace(value=tuple(str(here / one) if one.endswith(".py") else one for one in setting.value))
        yield setting


def _of_context(found: list[Setting], environ: Mapping[str, str]) -> Iterator[Setting]:
    """Of the context that is meant; whatever stands beside it at its own level is said more precisely, and wins."""
    named = min((one for one in found if one.key == "context"), key=lambda one: one.level, default=None)
    if named is None:
        if (name := contexts.selected(environ)) is None:
            return
        named = Setting("context", name, SELECTED, "nats context select")
    others = [one.level for one in found if one.key == "server" or (one.key == "store" and named.level == SELECTED)]
    if min(others, default=DEFAULT) < named.level:
        return
    if named.level == SELECTED:
        yield named
    context = contexts.read(named.value, environ)
    for key, value in context.said.items():
        yield _setting(KEYS[key], value, named.level, f"context {context.name}")


def _one_way(best: dict[str, Setting]) -> None:
    """Leave only the strongest way to prove who we are."""
    ways = {way: min((best[key].level for key in way if key in best), default=DEFAULT) for way in WAYS}
    strongest = min(ways, key=lambda way: ways[way])
    by_url = best["server"].level if "server" in best and user_in(best["server"].value) else DEFAULT
    for way in WAYS:
        if way != strongest or by_url < ways[strongest]:
            for key in way:
                best.pop(key, None)


def _setting(key: Key, said: Any, level: int, origin: str) -> Setting:
    try:
        return Setting(key.name, key.read(str(said) if isinstance(said, Path) else said), level, origin)
    except Wrong as wrong:
        raise _bad(Setting(key.name, said, level, origin), wrong.what, wrong.hint) from None


def _bad(setting: Setting, what: str, hint: str | None) -> ValidationError:
    file, _, line = setting.origin.rpartition(":")
    context: dict[str, Any] = {"file": file, "line": int(line)} if line.isdecimal() else {}
    value = redacted(setting.value) if setting.key == "server" and isinstance(setting.value, str) else setting.value
    said = "" if KEYS[setting.key].is_secret else f" {shown(str(value))}"
    return ValidationError(f"{setting.origin}: `{setting.key}`{said}: {what}", code="bad_setting", hint=hint, **context)
