"""A real S3 server for tests: moto in a process of its own, so that racing processes reach it too. No test in here.

Run as a script it is that process: it prints its port and serves until its standard input ends, so that no server
outlives the tests, whatever becomes of them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "foldfleet"


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket; `environment` is what every process needs that opens a URL of it."""

    endpoint_url: str
    environment: dict[str, str]

    def url(self, prefix: str) -> str:
        return f"s3://{BUCKET}/{prefix}"


@contextlib.contextmanager
def running_s3(folder: Path, address: str = "127.0.0.1") -> Iterator[S3Server]:
    """Start a server that keeps its log and its AWS files in `folder`, and end it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-W", "ignore", str(Path(__file__)), address]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline().decode().strip()  # printed once it listens
            assert port, f"the S3 server did not start:\n{(folder / 'server.log').read_text()}"
            endpoint_url = f"http://{address}:{port}"
            with urllib.request.urlopen(urllib.request.Request(f"{endpoint_url}/{BUCKET}", method="PUT"), timeout=30):
                pass
            yield S3Server(endpoint_url, _environment(folder, endpoint_url))
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _environment(folder: Path, endpoint_url: str) -> dict[str, str]:
    """Settings that leave nothing to the AWS files of the person who runs the tests."""
    config, credentials = folder / "config", folder / "credentials"
    config.write_text("[default]\nregion = us-east-1\n", encoding="utf-8")
    credentials.write_text("", encoding="utf-8")
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PROFILE": "default",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _serve() -> None:
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        """S3 decides conditional writes one after the other; moto looks first and writes later."""
        with one_at_a_time if "HTTP_IF_NONE_MATCH" in environ else contextlib.nullcontext():
            return moto(environ, start_response)

    server = make_server(sys.argv[1], 0, application, threaded=True, request_handler=MotoRequestHandler)
    os.environ["MOTO_PORT"] = str(server.port)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    _serve()
