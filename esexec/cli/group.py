"""A verb that has verbs of its own, one of which is meant where none is named: `esexec history ID`."""

from typing import ClassVar

import typer
from typer.core import TyperGroup


class WithDefault(TyperGroup):
    """A group of verbs. `default` is the verb that is meant by whatever is not the name of one."""

    default: ClassVar[str]

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
