"""What a client is told where the server does not store its command."""

import pytest

from esexec.client.sending import not_stored
from esexec.domain.errors import Overloaded
from esexec.nats.publisher import STREAM_FULL, TOO_MANY_REQUESTS, ErrorDetail


@pytest.mark.parametrize("err_code", [STREAM_FULL, TOO_MANY_REQUESTS])
def test_too_much_is_said_as_that(err_code: int) -> None:
    """Whether the stream is full or the server does not keep up: nothing was accepted, and it is worth trying again."""
    error = not_stored(ErrorDetail(429, err_code, "too many requests"))
    assert isinstance(error, Overloaded)
    assert "try again later" in str(error)


def test_another_refusal_is_told_as_it_is() -> None:
    """Trying again would not help."""
    error = not_stored(ErrorDetail(400, 10052, "maximum consumers limit reached"))
    assert not isinstance(error, Overloaded)
    assert "maximum consumers limit reached" in error.message
