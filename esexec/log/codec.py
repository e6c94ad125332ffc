"""Commits to bytes and back. The one place that will upcast old events.

Decoding is validation: bytes that are no commit of version 1 raise `CorruptHistory`, whatever is wrong with them.
"""

import msgspec

from esexec.domain.commit import Commit
from esexec.domain.errors import CorruptHistory

VERSION = 1

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Commit)

encode = _encoder.encode


def decode(data: bytes) -> Commit:
    """The commit that these bytes are. Raises `CorruptHistory`."""
    try:
        commit = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptHistory(f"these bytes are no commit: {error}", context={"bytes": len(data)}) from error
    if commit.v != VERSION:
        raise CorruptHistory(f"commit format {commit.v} is not known here", hint="a newer esexec wrote it; upgrade this one")
    return commit
