"""What can be said of where to connect and who we are, as data: the names, in which variables they stand, what they mean."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from esexec.domain import limits
from esexec.domain.explain import did_you_mean
from esexec.domain.ids import is_user_id
from esexec.nats.address import servers_of

PREFIX: Final = "ESEXEC_"
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


class Wrong(Exception):
    """A value that cannot be. `hint`: the way out."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class Key(NamedTuple):
    """A setting. `also`: variables of the `nats` program that say it as well. `read`: what is said → the value; raises `Wrong`.

    `is_path`: in a file it is relative to that file. `is_secret`: never shown. `default`: None where there is none.
    """

    name: str
    meaning: str
    also: tuple[str, ...] = ()
    read: "Callable[[Any], Any]" = lambda said: _text(said)
    is_path: bool = False
    is_secret: bool = False
    default: Any = None

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise Wrong("is not a text", "put it into quotes")
    if not said.strip() or not said.isprintable():
        raise Wrong("is empty, or no text on one line")
    return said


def _server(said: Any) -> str:
    for server in servers_of(_text(said)):
        scheme, found, _ = server.partition("://")
        if found and scheme not in _SCHEMES:
            raise Wrong(f"{scheme}:// is no scheme of a NATS server", did_you_mean(scheme, _SCHEMES))
    return str(said)


def _namespace(said: Any) -> str:
    if not is_user_id(_text(said)):
        raise Wrong("is no name for a namespace", f"use 1 to {limits.id_chars} letters, digits, - and _; not _ first")
    return str(said)


def _path(said: Any) -> Path:
    return Path(_text(said)).expanduser()


def _modules(said: Any) -> tuple[str, ...]:
    names = said.split(",") if isinstance(said, str) else said
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise Wrong("is no list of modules", 'as in ["shop.tasks", "tasks.py"]')
    return tuple(name.strip() for name in names)


KEYS: Final[dict[str, Key]] = {
    key.name: key
    for key in (
        Key("server", "The NATS server; several of a cluster separated by commas.", ("NATS_URL",), _server),
        Key("context", "A context of the `nats` program, by its name.", ("NATS_CONTEXT",)),
        Key("user", "The NATS user.", ("NATS_USER",)),
        Key("password", "The user's password.", ("NATS_PASSWORD",), is_secret=True),
        Key("token", "A token, instead of a user.", ("NATS_TOKEN",), is_secret=True),
        Key("credentials", "A NATS creds file, instead of a user.", ("NATS_CREDS",), _path, is_path=True),
        Key("nkeys_seed", "A file with the seed of an nkey, instead of a user.", ("NATS_NKEY",), _path, is_path=True),
        Key("tls_ca", "The certificates that the server's is checked with (PEM).", ("NATS_CA",), _path, is_path=True),
        Key("tls_cert", "Our own certificate (PEM).", ("NATS_CERT",), _path, is_path=True),
        Key("tls_key", "The key to our certificate (PEM).", ("NATS_KEY",), _path, is_path=True),
        Key("tls_hostname", "The name in the server's certificate, where it is not the one in the URL."),
        Key("inbox_prefix", "What subjects for answers begin with; else `_INBOX`."),
        Key("namespace", "The namespace.", read=_namespace, default="default"),
        Key(
            "store", "Files of the embedded server, where no server is named.", read=_path, is_path=True, default=Path(".esexec")
        ),
        Key("actor", "Who gives commands, for the history."),
        Key(
            "tasks",
            "Modules and files with tasks, for `dev`, `worker`, `run`, `list` and `plan check`.",
            read=_modules,
            default=(),
        ),
    )
}

WAYS: Final = (("credentials",), ("nkeys_seed",), ("token",), ("user", "password"))
"""How to prove who we are: what the strongest level says of it is the way; the others are not gone."""
TLS: Final = ("tls_ca", "tls_cert", "tls_key")


def user_in(server: str) -> str | None:
    """Whoever is named in the URL of a server."""
    named = [one.partition("://")[2].rpartition("@")[0] for one in servers_of(server)]
    return next((unquote(one) for one in named if one), None)
