"""The run-time type checker of the tests."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

# int where float is said is what type checkers accept, too.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
