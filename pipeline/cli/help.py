"""Help pages: commands and options by purpose, examples at the end, and one line for a wrong name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import click

from triptych.pipeline.assignments import did_you_mean

OTHER = "other"


class Command(click.Command):
    """A command whose help has options by purpose, and examples at its end.

    Parameters
    ----------
    sections
        Titles, and the parameters listed under each; all others are listed under ``Options``.
    examples
        Command lines.
    """

    def __init__(
        self,
        *arguments: Any,
        sections: Mapping[str, Sequence[str]] | None = None,
        examples: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections, self.examples = dict(sections or {}), tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options by purpose."""
        title_of = {name: title for title, names in self.sections.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *self.sections)}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                rows[title_of.get(parameter.name or "", "Options")].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, and how options are named in the environment."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        if ctx.auto_envvar_prefix:
            formatter.write_paragraph()
            formatter.write_text(f"In the environment: {ctx.auto_envvar_prefix}_OPTION=VALUE.")


class Group(click.Group):
    """A group whose help lists its commands by purpose; a command that is in no section comes last."""

    command_class = Command

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections = dict(sections or {})

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section of commands for each purpose."""
        listed = [name for names in self.sections.values() for name in names]
        others = [name for name in self.list_commands(ctx) if name not in listed]
        limit = formatter.width - 6 - max(map(len, self.commands), default=0)
        for title, names in {**self.sections, OTHER if self.sections else "Commands": others}.items():
            rows = [
                (name, command.get_short_help_str(limit))
                for name in names
                if (command := self.get_command(ctx, name)) and not command.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; the nearest one is named where there is none."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            hint = did_you_mean(name, self.commands) or f" `{ctx.command_path} -h` lists them"
            raise click.UsageError(f"unknown command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog with its lines as they are."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(inspect.cleandoc(self.epilog) + "\n")


class Choice(click.Choice[str]):
    """A choice that names the nearest valid value for an invalid one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return one sentence with all choices and, if one is similar, that one."""
        valid = [str(choice) for choice in self.choices]
        return f"{value!r}: choose from {', '.join(valid)}.{did_you_mean(str(value), valid)}".rstrip(".")


def usage_message(error: click.ClickException) -> str:
    """Return one line for wrong usage, with the nearest option where an option is unknown."""
    context = getattr(error, "ctx", None)
    path = f"`{context.command_path} -h`" if context else ""
    if isinstance(error, click.NoSuchOption):
        names = (
            [
                name
                for each in context.command.get_params(context)
                for name in each.opts
                if name.startswith("--")
            ]
            if context
            else []
        )
        hint = did_you_mean(error.option_name, names) or (f" {path} lists the options" if path else "")
        return f"unknown option {error.option_name}.{hint}"
    return " ".join(error.format_message().split())
