"""A real Orthanc for the tests, on a port of this machine, over REST only."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.journeys.conftest import free_port


class Orthanc:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def call(self, path: str, body: bytes | None = None) -> bytes:
        """The answer to a GET, or with a body to a POST."""
        request = urllib.request.Request(self._url + path, data=body, method="GET" if body is None else "POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def upload(self, image: bytes) -> str:
        """Stores an instance; its Orthanc id."""
        return str(json.loads(self.call("/instances", image))["ID"])

    def anonymized(self, image: bytes, **options: object) -> bytes:
        """What /anonymize makes of an image."""
        return self.call(f"/instances/{self.upload(image)}/anonymize", json.dumps(options).encode())


@contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """A running Orthanc that keeps its data in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "HttpPort": port,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    environment = os.environ | {"TCP_NODELAY": "1"}
    process = subprocess.Popen(
        ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    server = Orthanc(port)
    try:
        for _ in range(200):
            try:
                server.call("/system")
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise RuntimeError("Orthanc does not answer")
        yield server
    finally:
        process.terminate()
        process.wait(20)
