"""A call of the command line: which server, which namespace, and how to speak. Every verb is given one.

Results go to stdout, everything else to stderr. Without a server named, the embedded one on `store` is used: the running one,
or one that lives as long as the verb does.
"""

import getpass
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from esexec.cli.text import clean, clean_lines
from esexec.client import Client
from esexec.client.actor import actor_of
from esexec.configuration import ARGUMENT, FILE, Configuration
from esexec.domain.errors import NotFound, Unavailable
from esexec.executor import Executor
from esexec.nats.address import Auth, redacted
from esexec.nats.embedded import EmbeddedServer

DEFAULT_STORE = Path(".esexec")
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class Server:
    """Where to connect. `is_ours`: started by this verb, so nobody else works on it yet; `store` None: it was named. `auth`: who
    we are to it."""

    url: str
    store: Path | None = None
    is_ours: bool = False
    auth: Auth = field(default_factory=Auth)

    @property
    def shown_url(self) -> str:
        """The URL without its secrets."""
        return clean(redacted(self.url))

    @property
    def place(self) -> str:
        """The server in words."""
        if self.store is None:
            return self.shown_url
        return f"{self.url} ({'started' if self.is_ours else 'running already'}, files in {self.store})"


@dataclass(frozen=True)
class Call:
    """See the module. `server` None: the embedded one. `actor` None: whoever is at the keyboard."""

    configuration: Configuration
    json: bool
    verbose: bool

    @property
    def server(self) -> str | None:
        return None if self.configuration.embeds else self.configuration["server"]

    @property
    def namespace(self) -> str:
        return str(self.configuration["namespace"])

    @property
    def store(self) -> Path:
        return Path(self.configuration["store"])

    @property
    def actor(self) -> str | None:
        said: str | None = self.configuration["actor"]
        return said

    @property
    def tasks(self) -> list[str]:
        """The modules with tasks that the project's settings name."""
        return list(self.configuration["tasks"])

    @property
    def esexec(self) -> str:
        """How a command that is advised begins: with what leads to this server and namespace from another terminal here."""
        words = ["esexec"]
        settings = self.configuration.settings
        if settings["context"].level == ARGUMENT:
            words += ["--context", settings["context"].value]
        elif self.server is not None and settings["server"].level < FILE:
            words += ["--server", Server(self.server).shown_url]
        elif self.server is None and settings["store"].level < FILE and self.store != DEFAULT_STORE:
            words += ["--store", str(self.store)]
        if settings["namespace"].level < FILE and self.namespace != DEFAULT_NAMESPACE:
            words += ["--namespace", self.namespace]
        return shlex.join(words)

    @property
    def views(self) -> Path:
        """Where projections on the embedded server keep what they know."""
        return self.store / "projections" / f"{self.namespace}.sqlite"

    # Speaking ----------------------------------------------------------------------------------------------------------

    def say(self, line: str = "") -> None:
        """A line of the result, in plain words; nothing with `--json`."""
        if not self.json:
            print(clean_lines(line), flush=True)

    def note(self, line: str) -> None:
        """A line beside the result, on stderr."""
        print(clean(line), file=sys.stderr, flush=True)

    def document(self, content: Any) -> None:
        """One JSON document on stdout, or one of several lines; indented for a person's eyes."""
        text = msgspec.json.encode(content)
        if sys.stdout.isatty():
            text = msgspec.json.format(text, indent=2)
        print(clean_lines(text.decode()), flush=True)

    def line(self, content: Any) -> None:
        """One JSON document on a line of its own."""
        print(clean(msgspec.json.encode(content).decode()), flush=True)

    # Connecting --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reach(self, *, new_store: bool = True) -> AsyncIterator[Server]:
        """The server. Raises `NotFound` if its store would have to be made and that makes no sense (`new_store` False)."""
        if self.server is not None:
            yield Server(self.server, auth=self.configuration.auth)
            return
        if not new_store and not (self.store / "jetstream").is_dir():
            hint = "run a plan here first (esexec run), or name a server (--server) or the store (--store)"
            raise NotFound(f"there are no histories in {self.store}", code="no_store", hint=hint)
        try:
            async with EmbeddedServer(self.store) as server:
                yield Server(server.url, self.store, server.is_ours)
        except OSError as error:
            if error.filename is None:
                raise
            raise Unavailable(f"cannot use the store {self.store}: {error.strerror}", hint="name another with --store") from error

    @asynccontextmanager
    async def client(
        self, *, new_store: bool = False, decides: bool = False, asks: bool = False
    ) -> AsyncIterator[tuple[Client, Server]]:
        """A client. A server of our own gets what the verb needs: an executor that `decides` on commands, projections that it
        `asks`."""
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(self.reach(new_store=new_store))
            if decides and server.is_ours:
                await stack.enter_async_context(Executor(server.url, namespace=self.namespace, **server.auth))
            if asks and server.is_ours:
                from projections.role import Projector  # it takes its time, and few verbs need it

                role = Projector(server.url, namespace=self.namespace, store=self.views, **server.auth)
                projector = await stack.enter_async_context(role)
                await projector.caught_up()
            client = Client(server.url, namespace=self.namespace, actor=self.actor_at(server), **server.auth)
            yield await stack.enter_async_context(client), server

    def actor_at(self, server: Server) -> str | None:
        """Who gives the commands. Raises `ValidationError` (`bad_actor`)."""
        return actor_of(self.actor, server.url, server.auth) or _at_the_keyboard()


def _at_the_keyboard() -> str | None:
    """The user of the operating system; in a container there may be none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return None
