"""An outage is told once for a whole process."""

from esexec.nats.outages import Outages


class Connection:
    """Stands for one."""


def test_an_outage_is_told_once() -> None:
    """The first connection that loses a server tells of it, the last that has it back tells of that."""
    outages, one, other = Outages(), Connection(), Connection()
    assert outages.lost("nats://a", one)
    assert not outages.lost("nats://a", other)
    assert not outages.over("nats://a", one)
    assert outages.over("nats://a", other)
    assert outages.lost("nats://a", other)


def test_servers_are_lost_one_by_one() -> None:
    """The outage of one server hides no other's."""
    outages, one, other = Outages(), Connection(), Connection()
    assert outages.lost("nats://a", one)
    assert outages.lost("nats://b", other)
    assert outages.over("nats://b", other)


def test_who_lost_nothing_tells_nothing() -> None:
    """A connection that was never without the server ends no outage, nor does one that vanished hold it up."""
    outages, one, other = Outages(), Connection(), Connection()
    assert not outages.over("nats://a", one)
    vanishing = Connection()
    assert outages.lost("nats://a", vanishing)
    del vanishing
    assert outages.lost("nats://a", other)
    assert outages.over("nats://a", other)
