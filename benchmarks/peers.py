"""Other tools that sign DICOM files, on the same files. None is a dependency: one that is missing is named and left out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from benchmarks.files import ImageFile
from benchmarks.rounds import Action, Took, timed


class Missing(Exception):
    """A peer that is not on this machine, and how to get it."""


class Peer(Protocol):
    """A tool that signs files into other files and verifies those. `version` is what it says of itself."""

    name: str
    version: str
    note: str

    def actions(self, files: Sequence[ImageFile]) -> dict[str, Action]:
        """What to measure, in this order: names beginning with `sign` and `verify`, and others that help to read them."""

    def close(self) -> None: ...


class Dcmsign:
    """dcmtk's `dcmsign`: Creator RSA profile, RSA 2048, SHA-256, all elements signed. One process a file: it takes no more."""

    name = "dcmsign"
    note = "a process for each file; `--version` is that process without work"

    def __init__(self, folder: Path) -> None:
        program = shutil.which("dcmsign")
        if program is None:
            raise Missing("dcmsign is not installed: apt-get install dcmtk")
        self._program, self._folder = program, folder
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"dcmsign v(\S+)", said)
        self.version = found.group(1) if found else "unknown"
        folder.mkdir()
        self._key, self._certificate = _rsa(folder)

    def actions(self, files: Sequence[ImageFile]) -> dict[str, Action]:
        signed = [self._folder / f"{number}.dcm" for number in range(len(files))]
        sign = ["-q", "+s", self._key, self._certificate, "+pc", "+m2"]
        verify = ["-q", "--verify", "+rc", "+cf", self._certificate]
        pairs = [(str(file.path), str(target)) for file, target in zip(files, signed, strict=True)]
        return {
            "sign": lambda: self._measured([[*sign, source, target] for source, target in pairs]),
            "verify": lambda: self._measured([[*verify, target] for _, target in pairs]),
            "--version": lambda: self._measured([["--version"]] * len(pairs)),
        }

    def close(self) -> None:
        shutil.rmtree(self._folder)

    def _measured(self, commands: Sequence[Sequence[str]]) -> Took:
        def run() -> None:
            for arguments in commands:
                subprocess.run([self._program, *arguments], stdout=subprocess.DEVNULL, check=True)

        return timed(run)


class C2pa:
    """`c2pa-health-imaging`: P-256, the manifest in private elements. In a process that stays, so without its start."""

    name = "c2pa-health-imaging"
    note = "in one process that stays; signing writes a new file, as its command does"

    def __init__(self, folder: Path, python: str) -> None:
        worker = Path(__file__).with_name("c2pa_worker.py")
        folder.mkdir()
        self._folder = folder
        command = [python, "-P", str(worker), str(folder)]
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        except OSError as error:
            shutil.rmtree(folder)
            raise Missing(f"{python} could not be started, to measure c2pa-health-imaging ({error.strerror})") from error
        try:
            hello = self._ask(None)
        except ValueError as error:
            self.close()
            raise Missing(f"{python} did not run the worker for c2pa-health-imaging") from error
        if "missing" in hello:
            self.close()
            raise Missing(f"{hello['missing']}: pip install c2pa-health-imaging, or name its Python with --c2pa-python")
        self.version = str(hello["version"])

    def actions(self, files: Sequence[ImageFile]) -> dict[str, Action]:
        paths = [str(file.path) for file in files]
        return {"sign": lambda: self._measured("sign", paths), "verify": lambda: self._measured("verify", paths)}

    def close(self) -> None:
        _pipe(self._process.stdin).close()
        self._process.wait()
        _pipe(self._process.stdout).close()
        shutil.rmtree(self._folder)

    def _measured(self, what: str, paths: Sequence[str]) -> Took:
        answer = self._ask({"do": what, "paths": list(paths)})
        if "wrong" in answer:
            raise SystemExit(f"c2pa-health-imaging could not {what}: {answer['wrong']}")
        return Took(float(answer["wall"]), float(answer["cpu"]))

    def _ask(self, question: dict[str, Any] | None) -> dict[str, Any]:
        if question is not None:
            _pipe(self._process.stdin).write(json.dumps(question) + "\n")
            _pipe(self._process.stdin).flush()
        answer: dict[str, Any] = json.loads(_pipe(self._process.stdout).readline())
        return answer


def present(folder: Path, c2pa_python: str | None) -> tuple[list[Peer], list[str]]:
    """The peers on this machine, and what is missing. Whoever calls closes them."""
    peers: list[Peer] = []
    missing: list[str] = []
    folder.mkdir()
    makers = (
        lambda: Dcmsign(folder / "dcmsign"),
        lambda: C2pa(folder / "c2pa", c2pa_python or sys.executable),
    )
    for make in makers:
        try:
            peers.append(make())
        except Missing as error:
            missing.append(str(error))
    return peers, missing


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise OSError("the process has no pipe")
    return pipe


def _rsa(folder: Path) -> tuple[str, str]:
    """The paths of a fresh RSA 2048 key and of its self-signed certificate, in PEM."""
    private = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "benchmark")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM))
    return str(key), str(certificate)
