"""The `scanseal` command in a process that has loaded its libraries already: half of what a journey takes is loading them.

A server loads all that commands load, and forks a process for each command, with its own folder, environment and standard
files. What a command does, and how it ends, is the same as in `python -m ledger.cli`, which tests of single commands run.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_HEAD = 1 << 20


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], given: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """One command, as `subprocess.run` gives it. Raises subprocess.TimeoutExpired after it was killed."""
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asked,
    ):
        stdin.write(given.encode())
        stdin.seek(0)
        asked.settimeout(timeout_s)
        asked.connect(str(_server()))
        request = json.dumps({"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}).encode()
        socket.send_fds(asked, [request], [stdin.fileno(), stdout.fileno(), stderr.fileno()])
        try:
            code = int(asked.recv(16))
        except TimeoutError as error:
            raise subprocess.TimeoutExpired(list(arguments), timeout_s) from error
        told = []
        for file in (stdout, stderr):
            file.seek(0)
            told.append(file.read().decode())
    return subprocess.CompletedProcess(list(arguments), code, *told)


@cache
def _server() -> Path:
    """The server's socket; it ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    path = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.journeys.warm", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"COLUMNS": "200"},
    )

    def end() -> None:
        process.kill()
        process.wait()
        path.unlink(missing_ok=True)
        folder.rmdir()

    atexit.register(end)
    if process.stdout is None or process.stdout.read(1) != b"r":
        raise RuntimeError("the server of warm commands did not start")
    return path


def _serve(path: str) -> None:
    import ledger.cli
    import ledger.wiring

    for package in (ledger.wiring, ledger.cli):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    for name in ("eth_account", "pydicom.pixels", "gdcm", "jinja2", "sqlalchemy.dialects.sqlite"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(16)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(1, b"r")
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _attend(connection)
        connection.close()


def _attend(connection: socket.socket) -> NoReturn:
    """Runs one command, says how it ended, and kills it when nobody waits for it any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, _, _ = socket.recv_fds(connection, _HEAD, 3)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _command(json.loads(request), files)
    for file in files:
        os.close(file)
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _command(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["scanseal", *request["arguments"]]
    code = 1
    try:
        from ledger.cli.__main__ import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if isinstance(ended.code, str):
            sys.stderr.write(ended.code + "\n")
    except BaseException:  # noqa: BLE001 - told as the interpreter tells it
        traceback.print_exc()
    for file in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            file.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
