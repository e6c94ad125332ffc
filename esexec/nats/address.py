"""Where a server or a cluster is and who we are to it: taken apart, shown without secrets, and why it cannot be reached."""

import base64
import re
import ssl
from pathlib import Path
from typing import TypedDict
from urllib.parse import unquote

import msgspec
from nats import errors

from esexec.domain.errors import Unavailable


class Auth(TypedDict, total=False):
    """How to prove who we are, and TLS. `credentials` is the path of a NATS creds file, `nkeys_seed` that of a seed."""

    user: str
    password: str
    token: str
    credentials: str | Path
    nkeys_seed: str | Path
    tls: ssl.SSLContext
    tls_hostname: str
    inbox_prefix: str


def servers_of(url: str) -> list[str]:
    """The servers of a cluster, from their addresses separated by commas. Beside a password each needs its `nats://`."""
    return [part.strip() for part in re.split(r",(?=\s*\w+://)" if "@" in url else ",", url)]


def user_of(url: str, auth: Auth) -> str | None:
    """The name of the NATS user that we connect as: as it was given, or stands in the URL; the name in a creds file (its public
    key if it has none); the public key of an nkey. None: without any of these, or with a token; also if a file cannot be read."""
    if user := auth.get("user"):
        return user
    try:
        if (file := auth.get("credentials")) is not None:
            return _user_in(Path(file).read_text())
        if (file := auth.get("nkeys_seed")) is not None:
            return _public_key(Path(file).read_bytes().strip())
    except (OSError, ValueError):
        return None  # connecting says what is wrong with it
    for server in servers_of(url):
        user, found, _ = server.partition("://")[2].rpartition("@")[0].partition(":")
        if user and found:  # alone it is a token
            return unquote(user)
    return None


class _Claims(msgspec.Struct):
    name: str = ""
    sub: str = ""


def _user_in(credentials: str) -> str | None:
    token = re.search(r"-----BEGIN NATS USER JWT-----\s+(\S+)", credentials)
    if token is None or token[1].count(".") != 2:
        return None
    payload = token[1].split(".")[1]
    claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
    return claims.name or claims.sub or None


def _public_key(seed: bytes) -> str | None:
    try:
        import nkeys  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ImportError:
        return None
    return str(nkeys.from_seed(bytearray(seed)).public_key.decode())


def redacted(url: str) -> str:
    """`url` without user, password and token."""
    shown = []
    for server in servers_of(url):
        scheme, found, rest = server.partition("://")
        scheme, rest = (scheme, rest) if found else ("nats", server)
        shown.append(f"{scheme}://{rest.rpartition('@')[2]}")
    return ",".join(shown)


def is_refusal(error: Exception) -> bool:
    """Whether the server, or we, said no: trying again would change nothing."""
    text = str(error).lower()
    return isinstance(
        error, errors.AuthorizationError | errors.InvalidUserCredentialsError | ssl.SSLCertVerificationError
    ) or any(word in text for word in ("authorization", "authentication", "plaintext"))


def cannot_connect(url: str, error: Exception) -> Unavailable:
    """What to raise when connecting to `url` failed with `error`."""
    server, reason = redacted(url), str(error).removeprefix("nats: ").strip("'") or type(error).__name__
    if isinstance(error, ssl.SSLError) or "plaintext" in reason:
        return Unavailable(f"no TLS with the NATS server at {server}: {reason}", hint="check certificates and host name")
    if is_refusal(error):
        return Unavailable(f"the NATS server at {server} refused us: {reason}", hint="check the credentials")
    hint = "is it running? `esexec dev` starts one here"
    return Unavailable(f"cannot reach the NATS server at {server}: {reason}", hint=hint)
