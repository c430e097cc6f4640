"""The Ray Serve host: a private one-node cluster on this machine, or the one that RAY_ADDRESS names."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from deocc_service import tracing
from deocc_service.auth import Guard
from deocc_service.engine import Load
from deocc_service.settings import HANDED_DOWN, Settings
from deocc_service.surroundings import free_port, restore_environ

__all__ = ["RayHost"]

LAME_DUCK_SECONDS = 2.0  # for balancers to see that we are not ready any more


class RayHost:
    """Ready inside the `with` block; drained and gone after it.

    Attributes:
        http_port, grpc_port, metrics_port: those bound, which matters when the settings say 0.
    """

    def __init__(self, settings: Settings, load: Load, temp_dir: Path | None = None) -> None:
        self._settings = settings
        self._load = load
        self._temp_dir = temp_dir
        if settings.image_dir is None:  # one for all replicas of the edge
            images = Path(tempfile.mkdtemp(prefix="deocc-images-"))
            weakref.finalize(self, shutil.rmtree, images, ignore_errors=True)
            self._settings = settings.model_copy(update={"image_dir": images})
        if settings.client_ca is not None:
            # Serve takes client certificates for HTTP but does not ask for them.
            raise ValueError("client_ca is not enforced on Ray: use --local, or check certificates in front")
        if "RAY_ADDRESS" in os.environ and (settings.tls or settings.api_keys_file is not None):
            # The proxies of a cluster that is there already never see our settings: they would let everybody in.
            raise ValueError("keys and TLS are enforced on a cluster of our own only, not on that of RAY_ADDRESS")
        # Refused here rather than in every replica.
        Guard.of(settings.api_keys_file)
        tracing.check(settings.otlp_endpoint)
        self.http_port = settings.http_port or free_port()
        self.grpc_port = settings.grpc_port or free_port()
        self.metrics_port = settings.metrics_port or free_port()  # of this node's agent, which always exports

    def __enter__(self) -> Self:
        self._environ = dict(os.environ)
        os.environ.update(self._environment())
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from ray import serve

        from deocc_service.proxy import APP

        try:
            self._handle.broadcast("drain").results(timeout_s=5)
            time.sleep(LAME_DUCK_SECONDS)
            serve.delete(APP)  # waits for what is running; serve.shutdown alone would cut it off
        finally:
            self._stop()

    def _environment(self) -> dict[str, str]:
        """What Ray's own processes read; they inherit it."""
        settings = self._settings
        chosen = {
            "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(2 * settings.max_body),  # above max_body the hook refuses, typed
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deocc_service.proxy.middlewares",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DEDUP_LOGS": "0",  # lines of requests differ in their numbers only
            HANDED_DOWN: settings.model_copy(
                update={"grpc_port": self.grpc_port}
            ).model_dump_json(),  # for the hook in the proxy
        }
        if "RAY_ADDRESS" not in os.environ and settings.metrics_host in ("127.0.0.1", "::1", "localhost"):
            # Ray listens on the loopback where it believes that it cannot be on several machines; else everywhere.
            chosen["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
            # Whoever may talk to a cluster may run code in it: a token of this run, in no file.
            if "ray" in sys.modules:
                raise RuntimeError("Ray reads its authentication mode when it is imported; start the host before that")
            chosen |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        if "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S" not in os.environ:
            # A proxy that died is replaced when it is next looked at, which Ray does every ten seconds.
            chosen["RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S"] = "2"
        if "OMP_NUM_THREADS" not in os.environ:
            # Ray would allow one thread to a replica that reserves no CPU.
            chosen["OMP_NUM_THREADS"] = str(os.cpu_count() or 1)
        return chosen

    def _tls(self) -> dict[str, str]:
        if not self._settings.tls:
            return {}
        return {"ssl_certfile": str(self._settings.tls_certificate), "ssl_keyfile": str(self._settings.tls_key)}

    def _start(self) -> None:
        import ray
        from ray import serve
        from ray.serve.schema import LoggingConfig

        from deocc_service.app import bind
        from deocc_service.proxy import APP

        if "RAY_ADDRESS" in os.environ:
            ray.init(log_to_driver=True, logging_level="WARNING")
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                logging_level="WARNING",
                _node_ip_address="127.0.0.1",
                _metrics_export_port=self.metrics_port,
                _temp_dir=str(self._temp_dir) if self._temp_dir else None,
            )
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
        serve.start(
            http_options={"host": self._settings.http_host, "port": self.http_port, **self._tls()},
            grpc_options={
                # Serve's own port is always in clear; with TLS the hook opens the one that callers are told of.
                "port": free_port() if self._settings.tls else self.grpc_port,
                "grpc_servicer_functions": ["deocc_service.proxy.install"],
                "enable_reflection": self._settings.api_keys_file is None and not self._settings.tls,
            },
            logging_config=quiet,
        )
        self._handle = serve.run(bind(self._settings, self._load), name=APP, logging_config=quiet)

    def _stop(self) -> None:
        import ray
        from ray import serve

        if ray.is_initialized():  # serve.shutdown would start a cluster to shut it down
            serve.shutdown()
            ray.shutdown()
        restore_environ(self._environ)
