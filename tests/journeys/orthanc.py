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
    def __init__(self, port: int, dicom_port: int, pid: int) -> None:
        self.url, self.dicom_port, self.pid = f"http://127.0.0.1:{port}", dicom_port, pid

    def call(self, path: str, body: bytes | None = None) -> bytes:
        """The answer to a GET, or with a body to a POST."""
        request = urllib.request.Request(self.url + path, data=body, method="GET" if body is None else "POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def delete(self, path: str) -> None:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, method="DELETE"), timeout=60):
            pass

    def upload(self, image: bytes) -> str:
        """Stores an instance; its Orthanc id."""
        return str(json.loads(self.call("/instances", image))["ID"])

    def anonymized(self, image: bytes, **options: object) -> bytes:
        """What /anonymize makes of an image."""
        return self.call(f"/instances/{self.upload(image)}/anonymize", json.dumps(options).encode())


@contextmanager
def orthanc(folder: Path, modalities: dict[str, list[object]] | None = None, **more: object) -> Iterator[Orthanc]:
    """A running Orthanc that keeps its data in a folder, and takes C-STORE from anybody on this machine. `modalities`: name ->
    [AE title, host, port]; `more`: other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    port, dicom_port = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": True,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowStore": True,
        "DicomModalities": modalities or {},
        "HttpPort": port,
    } | more
    (folder / "orthanc.json").write_text(json.dumps(settings))
    environment = os.environ | {"TCP_NODELAY": "1"}
    process = subprocess.Popen(
        ["Orthanc", str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    server = Orthanc(port, dicom_port, process.pid)
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
