"""``deocc keys``: who may use a service."""

from __future__ import annotations

from typing import Annotated

import typer

from deocc.local import provided

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Keys of a service.")


@app.callback()
def _keys() -> None:
    pass


@app.command()
def new(name: Annotated[str, typer.Argument(help="Whose it is; it stands in the log.")]) -> None:
    """Make a key.

    The key goes to its user; it is kept nowhere. The entry, which holds only a hash of it, goes into the list in the
    file that DEOCC_API_KEYS_FILE names.
    """
    key, entry = provided("new_key")(name)
    typer.echo(key)
    typer.echo(entry, err=True)
