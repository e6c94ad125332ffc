"""Who gives commands. It stands in the commit that carries them out, and is what the client says: nobody proves it.

What NATS knows of a publisher does not reach the executor, so whoever may publish commands may sign them with any name. Where
that matters, give each their own account or namespace.
"""

import os

from esexec.domain import limits
from esexec.domain.errors import ValidationError
from esexec.nats.address import Auth, user_of

VARIABLE = "ESEXEC_ACTOR"


def actor_of(given: str | None, url: str, auth: Auth) -> str | None:
    """Who is meant: as given, else by the environment, else the NATS user; None: nobody is named.

    Raises `ValidationError` (`bad_actor`) for a name that is too long, or does not fit in a line.
    """
    actor = given or os.environ.get(VARIABLE) or user_of(url, auth)
    if actor is not None and (len(actor) > limits.name_chars or not actor.isprintable()):
        hint = f"at most {limits.name_chars} printable characters"
        raise ValidationError(f"{actor[:80]!r} names no actor", code="bad_actor", hint=hint)
    return actor
