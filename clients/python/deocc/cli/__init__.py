"""The ``deocc`` command."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, NoReturn

import stamina.instrumentation
import typer

from deocc.cli import engines, evaluate, keys
from deocc.cli.batch import batch
from deocc.cli.complete import complete
from deocc.cli.console import report, report_retry
from deocc.cli.doctor import doctor
from deocc.cli.exits import HELP, exit_of
from deocc.cli.export import export
from deocc.cli.segment import segment
from deocc.cli.serve import serve
from deocc.errors import DeoccError

__all__ = ["app", "main"]

app = typer.Typer(
    name="deocc",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deocc {version('deocc')}")
        raise typer.Exit


@app.callback()
def deocc(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version and leave.")
    ] = False,
) -> None:
    """Give partly hidden objects back whole.

    A photo and a click in, the complete object out.
    """


app.command()(complete)
app.command()(segment)
app.command()(batch)
app.command()(export)
app.add_typer(evaluate.app, name="eval")
app.command()(serve)
app.command()(doctor)
app.add_typer(keys.app, name="keys")
app.add_typer(engines.app, name="engines")


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point. Exits with the statuses of `deocc.cli.exits`."""
    # stamina's own hook would write to standard output wherever structlog is installed.
    stamina.instrumentation.set_on_retry_hooks(
        [lambda details: report_retry(details.retry_num, details.wait_for, details.caused_by)]
    )
    try:
        app(arguments)
    except (DeoccError, OSError) as error:
        report(error)
        raise SystemExit(int(exit_of(error))) from None
    raise SystemExit(0)
