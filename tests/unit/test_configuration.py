"""Where to connect and who we are there: who wins, what is refused and where it stands."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esexec.configuration import KEYS, configuration, files, mistaken
from esexec.configuration.files import line_of
from esexec.domain.errors import ValidationError


class Project:
    """A directory with files, an environment with contexts of the nats program."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"HOME": str(home)}

    def file(self, name: str, text: str) -> Path:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def context(self, name: str, **said: Any) -> None:
        self.file(f".config/nats/context/{name}.json", json.dumps(said))

    def select(self, name: str) -> None:
        self.file(".config/nats/context.txt", name)

    def settled(self, *, below: str = ".", environ: dict[str, str] | None = None, **given: Any) -> Any:
        directory = self.home / below
        directory.mkdir(parents=True, exist_ok=True)
        return configuration(given, environ=self.environ | (environ or {}), directory=directory)

    def refused(self, **options: Any) -> ValidationError:
        with pytest.raises(ValidationError) as refused:
            self.settled(**options)
        return refused.value


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_nothing_said_is_the_defaults(project: Project) -> None:
    """Without a word said the embedded server is meant, or for a program the usual one, and nobody is named."""
    settled = project.settled()
    assert (settled.embeds, settled.url, settled["namespace"], settled.auth) == (True, "nats://127.0.0.1:4222", "default", {})
    assert {one.origin for one in settled.settings.values()} == {"default"}


def test_the_stronger_level_wins(project: Project) -> None:
    """Arguments, ESEXEC_*, the nats program's variables, the file, the selected context: each once those above are gone."""
    project.context("site", url="nats://context")
    project.select("site")
    file = project.file("esexec.toml", 'server = "nats://file"\n')
    levels: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"server": "nats://argument"}, {"ESEXEC_SERVER": "nats://own", "NATS_URL": "nats://nats"}, "argument"),
        ({}, {"ESEXEC_SERVER": "nats://own", "NATS_URL": "nats://nats"}, "$ESEXEC_SERVER"),
        ({}, {"ESEXEC_SERVER": "", "NATS_URL": "nats://nats"}, "$NATS_URL"),
        ({}, {}, f"{file}:1"),
    ]
    for given_, environ, origin in levels:
        setting = project.settled(environ=environ, **given_).settings["server"]
        assert setting.origin == origin
    file.unlink()
    settled = project.settled()
    assert (settled["server"], settled.settings["server"].origin, settled["context"]) == (
        "nats://context",
        "context site",
        "site",
    )


@given(st.dictionaries(st.sampled_from(["argument", "ESEXEC_NAMESPACE", "file"]), st.from_regex(r"[a-z]{1,8}", fullmatch=True)))
def test_whoever_is_strongest_is_heard(tmp_path_factory: pytest.TempPathFactory, said: dict[str, str]) -> None:
    """Whatever subset of the levels says something: the value is the strongest one's."""
    project = Project(tmp_path_factory.mktemp("project"))
    if "file" in said:
        project.file("esexec.toml", f'namespace = "{said["file"]}"')
    environ = {"ESEXEC_NAMESPACE": said["ESEXEC_NAMESPACE"]} if "ESEXEC_NAMESPACE" in said else {}
    expected = next((said[level] for level in ("argument", "ESEXEC_NAMESPACE", "file") if level in said), "default")
    assert project.settled(environ=environ, namespace=said.get("argument"))["namespace"] == expected


def test_the_nearest_file_is_the_one(project: Project) -> None:
    """A file is looked for upwards; a pyproject.toml without our table is passed over; paths are relative to the file."""
    project.file("pyproject.toml", '[project]\nname = "x"\n\n[tool.esexec]\nstore = "data"\ntasks = ["tasks.py", "shop.tasks"]\n')
    project.file("a/pyproject.toml", '[project]\nname = "esexec-user"\n')
    settled = project.settled(below="a/b")
    assert settled["store"] == project.home / "data"
    assert settled["tasks"] == (str(project.home / "tasks.py"), "shop.tasks")
    assert settled.settings["store"].origin == f"{project.home / 'pyproject.toml'}:5"
    project.file("a/esexec.toml", 'namespace = "near"')
    settled = project.settled(below="a/b")
    assert (settled["namespace"], str(settled["store"])) == ("near", ".esexec")


def test_a_file_of_somebody_else_is_not_believed(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where anybody may write above our directory, nobody says to which server we go; the owner of the directory may."""
    planted = project.file("esexec.toml", 'server = "nats://trap"\n')
    owners, real = {planted: {4711}}, files._owners
    monkeypatch.setattr(files, "_owners", lambda path: owners.get(path) or real(path))
    assert project.settled(below="ours")["server"] is None
    assert f"{planted} is passed over" in caplog.text
    owners[project.home / "ours"] = {4711}
    assert project.settled(below="ours")["server"] == "nats://trap"


@pytest.mark.parametrize(
    ("text", "code", "line", "words", "hint"),
    [
        ('server = "nats://a"\nnamspace = "x"\n', "unknown_setting", 2, "`namspace` is no setting", "did you mean `namespace`?"),
        ("\nnamespace = 5\n", "bad_setting", 2, "`namespace` 5: is not a text", "put it into quotes"),
        ('namespace = "a.b"\n', "bad_setting", 1, "is no name for a namespace", "use 1 to 64"),
        ('server = "http://a"\n', "bad_setting", 1, "http:// is no scheme", "known: nats, tls, ws, wss"),
        ("tasks = 3\n", "bad_setting", 1, "is no list of modules", "as in"),
        ('x = "a\n', "bad_settings_file", 1, "no TOML", ""),
        ('[tool.esexec]\nserver = "a"\n', "unknown_setting", 1, "`tool` is no setting", "without [tool.esexec]"),
        ("token = 5\n", "bad_setting", 1, "`token`: is not a text", ""),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(
    project: Project, text: str, code: str, line: int, words: str, hint: str
) -> None:
    """An unknown key, a value that cannot be, a file that is no TOML: a typed error with file, line and a way out."""
    file = project.file("esexec.toml", text)
    error = project.refused()
    assert (error.code, error.context) == (code, {"file": str(file), "line": line})
    assert words in error.message
    assert error.message.startswith(f"{file}:{line}: ")
    assert hint in (error.hint or "")


def test_a_bad_variable_is_named(project: Project) -> None:
    """What is wrong in the environment is told by its variable, without its secrets."""
    error = project.refused(environ={"ESEXEC_SERVER": "http://u:secret@a"})
    assert error.message.startswith("$ESEXEC_SERVER: `server` http://a: ")
    assert dict(mistaken({"ESEXEC_SERVRE": "x", "ESEXEC_SERVICE_HOST": "10.0.0.1"})) == {"ESEXEC_SERVRE": "ESEXEC_SERVER"}


def test_a_context_says_who_we_are(project: Project) -> None:
    """A context that is named brings its server and credentials; what is said beside it at the same level wins."""
    project.context("site", url="nats://site", creds="~/site.creds", description="ours")
    settled = project.settled(context="site", environ={"NATS_URL": "nats://elsewhere"})
    assert settled["server"] == "nats://site"
    assert settled.auth["credentials"] == Path("~/site.creds").expanduser()
    assert project.settled(context="site", server="nats://other").auth.keys() == {"credentials"}
    assert project.settled(environ={"NATS_CONTEXT": "site"})["server"] == "nats://site"


def test_credentials_of_a_context_go_to_its_server_only(project: Project) -> None:
    """Where a server, or for the selected context a store, is named more strongly, nothing of the context is used."""
    project.context("site", url="nats://site", user="u", password="p")
    project.select("site")
    assert project.settled().auth == {"user": "u", "password": "p"}
    assert project.settled(server="nats://other").auth == {}
    settled = project.settled(store=Path("here"))
    assert (settled.embeds, settled.auth) == (True, {})


@pytest.mark.parametrize(
    ("said", "code", "hint"),
    [
        (None, "unknown_context", "did you mean `other`?"),
        ({"nsc": "nsc://o/a/u"}, "bad_context", "nsc generate creds"),
        ([], "bad_context", ""),
        ({"url": 5}, "bad_setting", ""),
    ],
)
def test_a_context_that_cannot_be_used_is_refused(project: Project, said: Any, code: str, hint: str) -> None:
    """One that is not there, or says what is not understood: refused, not used in part. One that is not meant harms nobody."""
    project.context("other", url="nats://a")
    if said is not None:
        project.file(".config/nats/context/othre.json", json.dumps(said))
    error = project.refused(context="othre")
    assert error.code == code
    assert hint in (error.hint or "")
    project.select("othre")
    assert project.settled(server="nats://b")["server"] == "nats://b"


def test_one_way_to_prove_who_we_are(project: Project) -> None:
    """The strongest level decides which way; a password may come from elsewhere than its user; a URL with a user is a way too."""
    project.file("esexec.toml", 'user = "ada"\n')
    assert project.settled(environ={"ESEXEC_PASSWORD": "p"}).auth == {"user": "ada", "password": "p"}
    assert project.settled(environ={"NATS_CREDS": "/c"}).auth == {"credentials": Path("/c")}
    assert project.settled(server="nats://bob:q@a").auth == {}
    assert project.settled(token="t", environ={"NATS_CREDS": "/c"}).auth == {"token": "t"}


def test_certificates_that_cannot_be_read_are_named(project: Project) -> None:
    """A file that is missing, or a key without a certificate, is told with who named it."""
    with pytest.raises(ValidationError) as refused:
        _ = project.settled(environ={"ESEXEC_TLS_CA": "/nowhere"}).auth
    assert refused.value.message.startswith("$ESEXEC_TLS_CA: `tls_ca` /nowhere: ")
    with pytest.raises(ValidationError, match="there is a key, and no certificate"):
        _ = project.settled(environ={"ESEXEC_TLS_KEY": "/nowhere"}).auth


def test_secrets_are_never_shown(project: Project) -> None:
    """What is shown of a setting holds no password and no token."""
    environ = {"ESEXEC_PASSWORD": "secret", "ESEXEC_TOKEN": "secret", "NATS_URL": "nats://u:secret@a"}
    settled = project.settled(environ=environ)
    assert "secret" not in "".join(one.shown or "" for one in settled.settings.values())


@given(st.sampled_from(sorted(KEYS)), st.integers(0, 5))
def test_the_line_of_a_key_is_found(key: str, above: int) -> None:
    """However a key of a table is written: with a head, quoted, or dotted."""
    lead = "# a comment\n" * above
    table = ("tool", "esexec")
    assert line_of(f'{lead}[tool.esexec]\n{key} = ""\n', table, key) == above + 2
    assert line_of(f'{lead}tool.esexec."{key}" = ""\n', table, key) == above + 1
    assert line_of(f'{lead}[tool]\n[tool."esexec"]\nother = "{key} = 1"\n', table, key) is None
