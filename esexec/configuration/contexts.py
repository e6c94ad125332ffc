"""Contexts of the `nats` program: `~/.config/nats/context/NAME.json`, and in `context.txt` the one that was selected."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from esexec.domain.errors import ValidationError
from esexec.domain.explain import did_you_mean

_FIELDS: Final = {
    "url": "server",
    "user": "user",
    "password": "password",
    "token": "token",
    "creds": "credentials",
    "nkey": "nkeys_seed",
    "ca": "tls_ca",
    "cert": "tls_cert",
    "key": "tls_key",
    "inbox_prefix": "inbox_prefix",
}
"""Of a context's file → ours."""
_NOT_UNDERSTOOD: Final = {
    "nsc": "write the credentials into a file: nsc generate creds, and name it in `creds`",
    "user_jwt": "put it into a creds file, and name it in `creds`",
    "socks_proxy": "esexec connects without a proxy",
    "jetstream_domain": "esexec knows no domains: connect to a server of that domain",
    "jetstream_api_prefix": "esexec asks JetStream by its usual subjects",
}
"""Without these it would connect to something else, or as nobody: refused rather than left out."""
_DEFAULT_SERVER: Final = "nats://127.0.0.1:4222"


class Context(NamedTuple):
    """A context: `said` by our names."""

    name: str
    path: Path
    said: Mapping[str, Any]


def directory(environ: Mapping[str, str]) -> Path:
    """Where the `nats` program keeps them."""
    home = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or os.path.expanduser("~")) / ".config"
    return Path(home) / "nats"


def selected(environ: Mapping[str, str]) -> str | None:
    """The name of the one that is selected; None: none is, or it is gone."""
    home = directory(environ)
    try:
        name = (home / "context.txt").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if name and (home / "context" / f"{name}.json").is_file() else None


def read(name: str, environ: Mapping[str, str]) -> Context:
    """The context of a name. Raises ValidationError: `unknown_context`, `bad_context`."""
    home = directory(environ) / "context"
    path = home / f"{name}.json"
    if "/" in name or os.sep in name or not path.is_file():
        names = sorted(one.stem for one in home.glob("*.json"))
        hint = did_you_mean(name, names) if names else f"there are none in {home}"
        raise ValidationError(f"there is no nats context {name[:80]!r}", code="unknown_context", hint=hint)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bad(path, f"cannot be read: {error}", "nats context validate") from None
    if not isinstance(document, dict):
        raise _bad(path, "is no object", "nats context validate")
    for field, hint in _NOT_UNDERSTOOD.items():
        if document.get(field):
            raise _bad(path, f"`{field}` is not understood by esexec", hint)
    said = {ours: document[theirs] for theirs, ours in _FIELDS.items() if document.get(theirs)}
    return Context(name, path, {"server": _DEFAULT_SERVER} | said)


def _bad(path: Path, what: str, hint: str) -> ValidationError:
    return ValidationError(f"{path}: {what}", code="bad_context", hint=hint, file=str(path))
