"""Where a server or a cluster is and who we are to it: taken apart, shown without secrets, and why it cannot be reached."""

import re
import ssl
from pathlib import Path
from typing import TypedDict

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
