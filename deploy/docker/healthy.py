"""Exit status 0 if the service in this container would answer a request: what the images' HEALTHCHECK runs."""

from __future__ import annotations

import http.client
import os
import ssl
import sys


def main() -> int:
    port = int(os.environ.get("DEOCC_HTTP_PORT", "8000"))
    connection: http.client.HTTPConnection
    if "DEOCC_TLS_CERTIFICATE" in os.environ:
        # It asks itself over the loopback, a name that its certificate need not have.
        context = ssl._create_unverified_context()  # noqa: S323 - as said
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=4, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4)
    try:
        connection.request("GET", "/readyz")
        return 0 if connection.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main())
