"""`visionprefer serve`: the endpoint on a Ray cluster, in the foreground, until it is told to stop."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from ray import serve

from visionprefer.errors import InputError
from visionprefer.reward import CONFIG
from visionprefer.settings import Workers
from visionprefer.store import Store
from visionprefer_pipelines.cluster import connected
from visionprefer_serve.access import check_host, token_digests
from visionprefer_serve.app import build
from visionprefer_serve.settings import EndpointSettings

APPLICATION = "visionprefer"
_LOOK_S = 1.0


def serve_models(
    settings: EndpointSettings, host: str, port: int, address: str | None, ready: Callable[[str], None]
) -> None:
    """Serve until interrupted, then answer what was asked already and end.

    Args:
        settings: what to serve.
        host: to listen on.
        port: to listen on.
        address: of a Ray cluster; None: one on this machine, which ends with the endpoint.
        ready: is told the endpoint's address once every model has answered.

    Raises:
        InputError: if a model cannot be loaded, the port is taken, or the host needs tokens and there are none.
    """
    check_host(host, token_digests(Path(settings.tokens) if settings.tokens else None))
    for name, model in settings.models.items():
        if not Store(model.path).exists(CONFIG):
            raise InputError(f"model {name}: no VP-Score at {model.path}: {CONFIG} is not there")
    _check_port(host, port)
    os.environ.setdefault("RAY_worker_niceness", "0")  # who serves does not stand back
    stages = {f"models.{name}.workers": model.workers for name, model in settings.models.items()}
    with connected(address, {**stages, "endpoint": Workers()}):
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        if serve.status().proxies:
            raise InputError(f"--address {address}: Ray Serve runs there already. Write: serve deploy config.yaml")
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        endpoint = None
        try:
            endpoint = serve.run(build(settings), name=APPLICATION, route_prefix="/")
            ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
            while APPLICATION in serve.status().applications:
                time.sleep(_LOOK_S)
            raise InputError("the application was deleted from outside")
        except KeyboardInterrupt:
            if endpoint:
                with contextlib.suppress(TimeoutError):  # what takes longer is cut off
                    endpoint.drain.remote().result(timeout_s=settings.timeout_s + 5)
            raise
        except RuntimeError as error:
            raise InputError(f"the endpoint did not start: {error}") from error
        finally:
            serve.shutdown()


def _check_port(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        raise InputError(f"--host {host} --port {port} cannot be listened on: {error.strerror}") from None
