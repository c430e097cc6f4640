"""What ``deocc serve`` runs: the entry point ``serve`` of the client's group ``deocc.local``."""

from __future__ import annotations

from deocc.errors import InvalidOption
from deocc_engines.errors import DeoccError
from deocc_service.inprocess import client_error, read_settings
from deocc_service.main import serve

__all__ = ["run"]


def run(*, local: bool, **settings: object) -> None:
    """Serves until a signal comes.

    Args:
        local: one process instead of Ray Serve.
        settings: fields of `Settings` that win over the environment's.

    Raises:
        InvalidOption: a setting is unknown or unfit.
        OSError: a port is taken.
        NotFound, InvalidBundle: there is no such engine, or it is damaged.
    """
    chosen = read_settings(**settings)
    try:
        serve(chosen, local=local)
    except ValueError as error:  # settings that do not go together, or a wrong file of keys
        raise InvalidOption(f"the settings are wrong: {error}") from error
    except DeoccError as error:
        raise client_error(error) from error
