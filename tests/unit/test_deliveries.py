"""What the server says of a delivery."""

import pytest

from esexec.nats.pull import delivery_of


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.ESEXEC_default_INBOX.p3.2.17.19.1763640000123456789.5",
        "$JS.ACK.hub.ACCHASH.ESEXEC_default_INBOX.p3.2.17.19.1763640000123456789.5.Xr4nd0m",
        "$JS.ACK._.ACCHASH.ESEXEC_default_INBOX.p3.2.17.19.1763640000123456789.5",
    ],
)
def test_both_forms_are_read(reply: str) -> None:
    """The number of deliveries and the time stand in both forms of the acknowledgement's subject, with a domain and without."""
    assert delivery_of(reply) == (2, 1763640000123456789)
