"""The pytest plugin: what a user's test file sees. pytest runs within this process."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import esexec.testing  # noqa: F401  # else each run of pytest within pytest would load it anew

pytest_plugins = ["pytester"]

PLAN = """
    import esexec

    @esexec.task
    async def charge(cents: int) -> str:
        return f"receipt-{cents}"

    order = esexec.Plan("order", steps=[esexec.Step(charge, params={"cents": 990})])
"""
ALONE = ("-p", "pytest_esexec", "-p", "no:cacheprovider", "-W", "ignore")


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all plugins that are installed here none has a say, which is quicker too."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def results(pytester: pytest.Pytester, test: str) -> pytest.RunResult:
    """What pytest says of a file of tests beside a module with a plan."""
    pytester.makepyfile(a_shop=PLAN, test_shop=test)
    pytester.syspathinsert()
    return pytester.runpytest_inprocess(*ALONE)


def test_a_test_has_an_engine(pytester: pytest.Pytester) -> None:
    """The fixture needs no import and no server."""
    found = results(
        pytester,
        """
        import a_shop

        def test_order(esexec_engine):
            esexec_engine.given(a_shop).when(a_shop.order).completed("receipt-990")
        """,
    )
    found.assert_outcomes(passed=1)


def test_each_test_has_its_own(pytester: pytest.Pytester) -> None:
    """What one test has given or broken, the next does not see."""
    found = results(
        pytester,
        """
        import a_shop, pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_order(esexec_engine, n):
            esexec_engine.given(a_shop).fail_step("charge", "GONE", retry=False)
            then = esexec_engine.when(a_shop.order).failed("GONE")
            assert len(then.history) == then.history[-1].n and esexec_engine.now.year == 2026
        """,
    )
    found.assert_outcomes(passed=2)


def test_a_difference_points_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    """Of the kit itself nothing is shown, only the user's line, the difference and the tale."""
    found = results(
        pytester,
        """
        import a_shop

        def test_order(esexec_engine):
            esexec_engine.given(a_shop).when(a_shop.order).attempts("charge", "charge")
        """,
    )
    found.assert_outcomes(failed=1)
    said = found.stdout.str()
    assert ">       esexec_engine.given(a_shop).when(a_shop.order).attempts" in said
    assert "- charge" in said and "execution_completed" in said
    assert "_same" not in said


def test_the_end_of_a_test_is_looked_at(pytester: pytest.Pytester) -> None:
    """A fault that hit nothing is an error of its test; where the test has failed already, nothing is added."""
    found = results(
        pytester,
        """
        import a_shop

        def test_misspelt(esexec_engine):
            esexec_engine.given(a_shop).fail_step("chrage")
            esexec_engine.when(a_shop.order).completed()

        def test_wrong(esexec_engine):
            esexec_engine.given(a_shop).fail_step("chrage")
            assert False
        """,
    )
    found.assert_outcomes(passed=1, failed=1, errors=1)
    found.stdout.fnmatch_lines(["*the fault of step `chrage` hit nothing*"])


def test_an_async_test_is_told_what_to_do(pytester: pytest.Pytester) -> None:
    """The engine has a loop of its own; what is awaited is run by it."""
    found = results(
        pytester,
        """
        import a_shop, asyncio, pytest

        def test_order(esexec_engine):
            async def inside():
                esexec_engine.when(a_shop.order)

            asyncio.run(inside())
        """,
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*loop_running*plain `def`*"])


def test_pytest_finds_it_by_itself() -> None:
    """Whoever has installed esexec has the plugin."""
    found = {one.name: one.value for one in entry_points(group="pytest11")}
    assert found["esexec"] == "pytest_esexec"


def test_who_does_not_ask_for_it_does_not_load_it() -> None:
    """The plugin is loaded with every run of pytest; the engine only where a test uses it. And the kit needs no pytest."""
    script = """if True:
        import sys
        import pytest_esexec
        assert not [name for name in sys.modules if name.split(".")[0] in ("esexec", "nats", "projections", "asyncio")]
    """
    subprocess.run([sys.executable, "-c", script], check=True)
    subprocess.run(
        [sys.executable, "-c", "import sys, esexec.testing; assert not {'pytest', '_pytest'} & set(sys.modules)"], check=True
    )
