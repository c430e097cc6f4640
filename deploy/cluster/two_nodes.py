"""Two Ray nodes on this machine, and the service on them as KubeRay deploys it: the configuration in
deploy/kubernetes/rayservice.yaml, put to the REST interface of Ray's head. The edge is on one node, the models on the
other, which can be lost and replaced.

python -m deploy.cluster.two_nodes [--application MODULE:NAME]
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from deocc_service.surroundings import free_port, restore_environ

MANIFEST = Path(__file__).parents[1] / "kubernetes" / "rayservice.yaml"
START_LIMIT = 180.0  # seconds
MARKS = {"Edge": "edge", "Segmenter": "models", "Completer": "models"}  # custom resources that keep replicas apart


class TwoNodes:
    """Serving inside the `with` block.

    It must be the first to import Ray in its process: the token of the cluster goes by the environment, like the
    service's own settings.

    Args:
        application: what Serve imports; None: what the manifest says.
        settings: DEOCC_ variables.
        temp_dir: Ray's; a short path, because sockets lie in it.

    Attributes:
        http_port, grpc_port: of the proxy on the first node.
    """

    def __init__(
        self, application: str | None = None, settings: dict[str, str] | None = None, temp_dir: Path | None = None
    ) -> None:
        self._application = application
        self._temp_dir = temp_dir
        self.http_port, self.grpc_port, self._dashboard_port = free_port(), free_port(), free_port()
        self._token = secrets.token_hex(32)
        self._added = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deocc_service.proxy.middlewares",
            "DEOCC_GRPC_PORT": str(self.grpc_port),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(MANIFEST.parents[2]), os.environ.get("PYTHONPATH")])),
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        self._before = dict(os.environ)
        os.environ.update(self._added)
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        try:
            self._add_node(
                resources={"edge": 1},
                include_dashboard=True,
                dashboard_port=self._dashboard_port,
                temp_dir=str(self._temp_dir) if self._temp_dir else None,
            )
            self.add_models_node()
            self._deploy()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def add_models_node(self) -> None:
        """Starts the node that the models are on."""
        self._models_node = self._add_node(resources={"models": 1})

    def lose_models_node(self) -> None:
        """Kills all processes of the node that the models are on."""
        self._cluster.remove_node(self._models_node, allow_graceful=False)

    def wait_until_ready(self, limit: float = START_LIMIT) -> float:
        """Seconds until requests would be answered.

        Raises:
            TimeoutError: they would not be, within the limit.
        """
        begun = time.monotonic()
        while (spent := time.monotonic() - begun) < limit:
            try:
                if httpx.get(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5).status_code == 200:
                    return spent
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise TimeoutError(f"not ready within {limit:g} s; {self._said()}")

    def replicas(self) -> dict[str, list[str]]:
        """The nodes' ids, by deployment, of the replicas that run."""
        deployments = self._rest("GET").json()["applications"]["deocc"]["deployments"]
        return {
            name: [replica["node_id"] for replica in deployment["replicas"] if replica["state"] == "RUNNING"]
            for name, deployment in deployments.items()
        }

    def _add_node(self, **arguments: Any) -> Any:
        # One agent a node, all of them on this machine.
        ports = {"dashboard_agent_listen_port": free_port(), "metrics_export_port": free_port()}
        return self._cluster.add_node(num_cpus=0, **ports, **arguments)

    def _deploy(self) -> None:
        config = yaml.safe_load(yaml.safe_load(MANIFEST.read_text())["spec"]["serveConfigV2"])
        config["proxy_location"] = "HeadOnly"  # two proxies cannot have the same port of one machine
        config["http_options"] = {"host": "127.0.0.1", "port": self.http_port}
        config["grpc_options"]["port"] = self.grpc_port
        (application,) = config["applications"]
        application["import_path"] = self._application or application["import_path"]
        for deployment in application["deployments"]:
            deployment["ray_actor_options"] = {"num_cpus": 0, "resources": {MARKS[deployment["name"]]: 0.01}}
        self._rest("PUT", json=config).raise_for_status()
        self.wait_until_ready()

    def _said(self) -> str:
        """What Serve says of the application and its deployments."""
        application = self._rest("GET").json()["applications"]["deocc"]
        said = [f"{name}: {each['status']} {each['message']}" for name, each in application["deployments"].items()]
        return "\n".join([f"{application['status']} {application['message']}", *said])

    def _rest(self, method: str, **arguments: Any) -> httpx.Response:
        url = f"http://127.0.0.1:{self._dashboard_port}/api/serve/applications/"
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.request(method, url, headers=headers, timeout=60, **arguments)

    def _stop(self) -> None:
        self._cluster.shutdown()
        restore_environ(self._before)


def main() -> None:
    parser = argparse.ArgumentParser(description="The service on two Ray nodes of this machine.")
    parser.add_argument("--application", metavar="MODULE:NAME", help="what Serve imports instead of the manifest's")
    with TwoNodes(parser.parse_args().application) as cluster:
        print(f"ready: http://127.0.0.1:{cluster.http_port}/ (gRPC on 127.0.0.1:{cluster.grpc_port})", flush=True)  # noqa: T201
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()
