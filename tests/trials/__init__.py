"""Trials of a running service, too long for the tests: `python -m tests.trials.NAME --help`."""
