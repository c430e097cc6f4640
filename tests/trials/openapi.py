"""schemathesis over the OpenAPI document: cases by the schema and against it, over HTTP, on `deocc serve --local`.

pip install schemathesis && python -m tests.trials.openapi [--examples 300] [--seed 1]

No answer may be a server's error or differ from what the document says of it. Ends with schemathesis' status.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.trials.service import serving

# Not `positive_data_acceptance`: what fits the schema may still be no picture.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"

# A caller who gives no time gets 504, one whom there is no room for 503.
EXPECTED = 'checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503", "504"]'


def main() -> None:
    """Runs schemathesis and shows what it says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--command", default=shutil.which("schemathesis"))
    options = parser.parse_args()
    if options.command is None:
        parser.error("schemathesis is not installed")
    with tempfile.TemporaryDirectory() as folder, serving("local") as service:
        config = Path(folder) / "schemathesis.toml"
        config.write_text(EXPECTED)
        command = [options.command, "--config-file", str(config), "run", f"{service.url}/openapi.json"]
        command += [
            "--checks",
            CHECKS,
            "-n",
            str(options.examples),
            "--seed",
            str(options.seed),
            "--phases",
            "examples,coverage,fuzzing",
        ]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
