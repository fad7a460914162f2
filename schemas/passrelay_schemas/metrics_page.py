"""The page of the metrics, with /healthz and /readyz beside it: one address, read only, without a login."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from passrelay_schemas.errors import ConfigurationError
from passrelay_schemas.health import Health, Troubles
from passrelay_schemas.logs import Action, Log
from passrelay_schemas.process_settings import MetricsSettings

Application = Callable[[Any, Any], Iterable[bytes]]

_IDLE_SECONDS = 10
"""A client that says nothing for so long is let go."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing: a monitor asks every few seconds."""


def serve(registry: CollectorRegistry, health: Health, settings: MetricsSettings, log: Log) -> Callable[[], None]:
    """Start the page if one is configured; returns what stops it. ConfigurationError for an address that is taken."""
    if settings.listen is None:
        return lambda: None
    host, _, port = settings.listen.rpartition(":")
    address = host.strip("[]")
    kind = _Server6 if ":" in address else _Server
    try:
        server = make_server(address, int(port), application(registry, health), kind, _Handler)
    except OSError as error:
        raise ConfigurationError(f"[metrics] listen {settings.listen}: {error.strerror}: take another port") from None
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info(Action.METRICS_LISTENING, address=f"{host}:{server.server_port}")

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop


def application(registry: CollectorRegistry, health: Health) -> Application:
    """The page as a WSGI application (PEP 3333): 200 when nothing is wrong, else 503 and what is, one line each."""
    metrics: Application = make_wsgi_app(registry)
    questions: dict[str, Troubles] = {"/healthz": health.alive, "/readyz": health.ready}

    def answer(environ: Any, start_response: Any) -> Iterable[bytes]:
        ask = questions.get(environ.get("PATH_INFO", ""))
        if ask is None:
            return metrics(environ, start_response)
        troubles = ask()
        status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return ["\n".join([*(troubles or ["ok"]), ""]).encode()]

    return answer
