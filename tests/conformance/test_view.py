"""What every view does, in memory, in SQLite and in PostgreSQL alike: `projections.view.View` as a list of promises."""

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from eventsourcing.persistence import IntegrityError, OperationalError, Tracking

from projections.memory import MemoryStore
from projections.postgres import PostgresStore, schema_of
from projections.sqlite import SqliteStore
from projections.tables import Table, Where
from projections.view import Store, View, Witness

CITIES = Table(
    "cities",
    key=("country", "city"),
    columns={"country": str, "city": str, "people": int, "area": float, "note": bytes},
    indexes=[("country", "people")],
)
SEEN = Table("seen", key=("id",), columns={"id": int})


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    match request.param:
        case "memory":
            store: Store = MemoryStore()
        case "sqlite":
            store = SqliteStore(tmp_path / "deep" / "views.sqlite")
        case _:
            store = PostgresStore(request.getfixturevalue("postgres_url"), f"t-{uuid.uuid4().hex[:12]}")
    yield store
    store.close()


@pytest.fixture
def view(store: Store) -> View:
    return store.view("places", [CITIES, SEEN])


def at(view: View, position: int) -> Tracking:
    return Tracking(view.name, position)


OSLO = CITIES.row("no", "Oslo", 700_000, 454.5, b"\x00fjord")
BERGEN = CITIES.row("no", "Bergen", 290_000, None, None)
ROME = CITIES.row("it", "Roma", 2**40, 1285.0, b"")


def filled(view: View) -> View:
    with view.change(at(view, 1000)):
        view.put(CITIES, [OSLO, BERGEN, ROME])
        view.put(SEEN, [SEEN.row(7)])
    return view


def test_what_was_put_is_there_with_its_position(view: View) -> None:
    """Rows, types and None come back as they went in; the position is the transaction's."""
    assert view.position == 0
    filled(view)
    assert view.position == 1000
    assert view.get(CITIES, "no", "Oslo") == OSLO
    assert view.get(CITIES, "no", "Bergen") == BERGEN
    assert view.get(CITIES, "it", "Roma") == ROME
    assert view.get(CITIES, "no", "Roma") is None
    keys = [("no", "Oslo"), ("it", "Roma"), ("no", "Roma"), *(("xx", str(number)) for number in range(1_200)), ("no", "Oslo")]
    assert sorted(view.get_all(CITIES, keys)) == sorted([OSLO, ROME])
    assert view.get_all(CITIES, []) == []


def test_a_put_with_the_same_key_replaces(view: View) -> None:
    """Also one that has nothing but a key; within the change it is seen at once."""
    filled(view)
    with view.change(at(view, 2000)):
        view.put(CITIES, [OSLO._replace(people=1), OSLO._replace(people=2)])
        view.put(SEEN, [SEEN.row(7), SEEN.row(8)])
        assert view.get(CITIES, "no", "Oslo").people == 2
    assert view.get(CITIES, "no", "Oslo") == OSLO._replace(people=2)
    assert view.count(SEEN) == 2


def test_a_delete_takes_away(view: View) -> None:
    """By key; what is not there is not missed."""
    filled(view)
    with view.change(at(view, 2000)):
        view.delete(CITIES, [("no", "Oslo"), ("no", "Nowhere")])
    assert [row.city for row in view.select(CITIES, order=["city"])] == ["Bergen", "Roma"]


def test_a_failed_change_leaves_nothing(view: View) -> None:
    """Neither rows nor position nor witness, if the code within fails."""
    filled(view)

    def fails() -> None:
        with view.change(at(view, 2000)):
            view.put(CITIES, [OSLO._replace(people=1)])
            view.delete(CITIES, [("it", "Roma")])
            view.see(Witness(2, "e", 1, "ab", "2026-01-01"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (view.position, view.witness) == (1000, None)
    assert view.get(CITIES, "no", "Oslo") == OSLO
    assert view.get(CITIES, "it", "Roma") == ROME


@pytest.mark.parametrize("position", [1000, 999, 1])
def test_nobody_changes_it_for_a_position_that_it_is_past(view: View, position: int) -> None:
    """Who was overtaken by another process leaves nothing: exactly once."""
    filled(view)
    with pytest.raises(IntegrityError), view.change(at(view, position)):
        view.put(CITIES, [OSLO._replace(people=1)])
    assert (view.position, view.get(CITIES, "no", "Oslo")) == (1000, OSLO)


def test_it_is_changed_within_a_transaction_only(view: View) -> None:
    """A `put` without a position would be lost or doubled."""
    with pytest.raises(RuntimeError, match="outside of a transaction"):
        view.put(CITIES, [OSLO])
    filled(view)
    with view.snapshot(), pytest.raises(RuntimeError, match="outside of a transaction"):
        view.delete(CITIES, [("no", "Oslo")])


def test_rows_are_selected_by_conditions_in_order(view: View) -> None:
    """All conditions hold; a comparison with None does not; `-` goes down; text goes by code points."""
    filled(view)
    with view.change(at(view, 2000)):
        view.put(CITIES, [CITIES.row("no", "bodø", 5, 1.0, b""), CITIES.row("no", "Ås", 5, 2.0, b"")])

    def cities(*where: Where, order: tuple[str, ...] = ("city",), limit: int | None = None) -> list[str]:
        return [row.city for row in view.select(CITIES, where, order=order, limit=limit)]

    assert cities() == ["Bergen", "Oslo", "Roma", "bodø", "Ås"]
    assert cities(order=("-people", "city")) == ["Roma", "Oslo", "Bergen", "bodø", "Ås"]
    assert cities(Where("country", "=", "no"), Where("people", "<", 700_000)) == ["Bergen", "bodø", "Ås"]
    assert cities(Where("area", ">=", 2.0)) == ["Oslo", "Roma", "Ås"]
    assert cities(Where("area", "<=", 454.5), Where("city", ">", "Oslo")) == ["bodø", "Ås"]
    assert cities(order=("city",), limit=2) == ["Bergen", "Oslo"]
    assert view.count(CITIES, [Where("country", "=", "no")]) == 4
    with pytest.raises(ValueError, match="no column"):
        cities(Where("mayor", "=", "?"))
    with pytest.raises(ValueError, match="no column"):
        cities(order=("mayor",))


def test_views_of_a_store_keep_apart(store: Store) -> None:
    """Each has rows, a position and a witness of its own; a table of one is none of the other's."""
    one, other = filled(store.view("one", [CITIES, SEEN])), store.view("other", [CITIES])
    with one.change(at(one, 3000)):
        one.see(Witness(3, "e", 1, "ab", "2026-01-01"))
    assert (other.position, other.count(CITIES), other.witness) == (0, 0, None)
    with pytest.raises(ValueError, match="no table of other"):
        other.select(SEEN)


def test_a_witness_is_remembered(view: View) -> None:
    """The last one, as of the transaction that saw it."""
    for position in (4, 9):
        with view.change(at(view, position)):
            view.see(Witness(position, "e", 1, f"hash-{position}", "2026-01-01"))
    assert view.witness == Witness(9, "e", 1, "hash-9", "2026-01-01")


def test_it_is_there_when_opened_again(store: Store) -> None:
    """Whoever opens the view by its name finds what was kept."""
    filled(store.view("one", [CITIES, SEEN]))
    again = store.view("one", [CITIES, SEEN])
    assert (again.position, again.count(CITIES)) == (1000, 3)


def test_cleared_it_is_as_new(view: View) -> None:
    """And begins at any position."""
    filled(view).clear()
    assert (view.position, view.count(CITIES), view.count(SEEN), view.witness) == (0, 0, 0, None)
    filled(view)


def test_the_same_content_has_the_same_hash(view: View, store: Store) -> None:
    """Whatever the order of writing, the name or the database; any other value gives another."""
    memory = filled(MemoryStore().view("elsewhere", [CITIES, SEEN]))
    other = store.view("other", [SEEN, CITIES])
    for number, row in enumerate([ROME, BERGEN, OSLO], 1):
        with other.change(at(other, number)):
            other.put(CITIES, [row])
    with other.change(at(other, 77)):
        other.put(SEEN, [SEEN.row(7)])
    assert filled(view).content_hash() == other.content_hash() == memory.content_hash()
    with other.change(at(other, 78)):
        other.put(CITIES, [OSLO._replace(note=None)])
    assert other.content_hash() != memory.content_hash()


def test_a_snapshot_is_of_one_moment(store: Store) -> None:
    """What another one changes meanwhile is not seen in it."""
    if isinstance(store, MemoryStore):
        pytest.skip("in memory a snapshot keeps others out, which one thread cannot show")
    reader, writer = filled(store.view("one", [CITIES, SEEN])), store.view("one", [CITIES, SEEN])
    with reader.snapshot():
        assert reader.count(CITIES) == 3
        with writer.change(at(writer, 2000)):
            writer.delete(CITIES, [("it", "Roma")])
        assert (reader.count(CITIES), reader.position) == (3, 1000)
    assert (reader.count(CITIES), reader.position) == (2, 2000)


def test_a_view_takes_the_place_of_another(store: Store) -> None:
    """`live` says which one answers; the other can be dropped, and its name used again."""
    old = filled(store.view("places", [CITIES, SEEN]))
    assert store.live("places") == "places"
    filled(store.view("places_2", [CITIES, SEEN]))
    store.swap("places", "places_2")
    store.drop(old)
    assert store.live("places") == "places_2"
    assert store.view("places_2", [CITIES, SEEN]).count(CITIES) == 3
    again = store.view("places", [CITIES, SEEN])
    assert (again.count(CITIES), again.position) == (0, 0)


def test_each_namespace_has_a_schema_of_its_own() -> None:
    """Also those with long names that begin alike."""
    one, other = schema_of("n" * 63 + "a"), schema_of("n" * 63 + "b")
    assert schema_of("shop") == "esexec_shop"
    assert one != other
    assert max(len(one), len(other)) <= 63


def test_a_store_is_closed_once_nobody_is_at_it(tmp_path: Path) -> None:
    """A thread that reads when it is closed reads to the end; closed under it, the database would take the process with it."""
    store = SqliteStore(tmp_path / "views.sqlite")
    view, began, go_on = filled(store.view("one", [CITIES, SEEN])), threading.Event(), threading.Event()
    found: list[int] = []

    def read() -> None:
        with view.snapshot():
            began.set()
            go_on.wait(10)
            found.append(view.count(CITIES))

    reading, closing = threading.Thread(target=read), threading.Thread(target=store.close)
    reading.start()
    began.wait(10)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    reading.join(10)
    closing.join(10)
    assert (found, closing.is_alive()) == ([3], False)
    with pytest.raises(OperationalError):
        view.count(CITIES)


def test_a_lock_is_had_by_one(store: Store, tmp_path: Path) -> None:
    """Until it gives it back, or its store is closed."""
    if isinstance(store, MemoryStore):
        pytest.skip("there is one process only")
    assert store.lock("places")
    assert store.lock("places"), "it is ours already"
    again = _again(store)
    try:
        assert not again.lock("places")
        assert again.lock("others")
        store.unlock("places")
        assert again.lock("places")
        assert not store.lock("places")
        again.unlock("places")
        assert store.lock("places")
        store.close()
        end = time.monotonic() + 10
        while not again.lock("places"):  # a server notices in a moment that who had it is gone
            assert time.monotonic() < end, "it is not given back"
    finally:
        again.close()


def _again(store: Store) -> Store:
    """Another opening of the same database."""
    if isinstance(store, SqliteStore):
        return SqliteStore(store.file)
    assert isinstance(store, PostgresStore)
    return PostgresStore(store._url, store._schema.removeprefix("esexec_"))


def test_what_comes_of_time_is_written_at_the_position_that_it_has(view: View) -> None:
    """It leaves the position alone; whoever was overtaken meanwhile, or fails, leaves nothing."""
    filled(view)
    with view.amend(1000):
        view.put(CITIES, [OSLO._replace(people=1)])
        view.delete(SEEN, [(7,)])
    assert (view.position, view.get(CITIES, "no", "Oslo"), view.count(SEEN)) == (1000, OSLO._replace(people=1), 0)
    with pytest.raises(IntegrityError), view.amend(999):
        view.put(CITIES, [OSLO._replace(people=2)])

    def fails() -> None:
        with view.amend(1000):
            view.put(CITIES, [OSLO._replace(people=3)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert (view.position, view.get(CITIES, "no", "Oslo")) == (1000, OSLO._replace(people=1))
