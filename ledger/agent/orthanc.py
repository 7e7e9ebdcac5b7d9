"""Polling an Orthanc for new instances over its REST API (`/changes`), as far as it was read before a restart."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError

from ledger.agent.receiver import Peer
from ledger.agent.spool import Spool, reason
from ledger.core.errors import FixInput, TryLater

PAGE: Final = 100
CHUNK: Final = 1 << 20


@dataclass(frozen=True)
class Orthanc:
    """An Orthanc to be polled. `allow`: whose instances are taken, by the AE title and address that sent them to the Orthanc;
    those of others are passed over."""

    source: str
    url: str
    forward: bool
    user: str | None = None
    password: str | None = None
    allow: tuple[Peer, ...] = (Peer(),)
    poll_s: float = 2.0
    ca_file: str | None = None


class Poller:
    """Reads the changes on a thread of its own. How far it read is kept in the spool, after what it read is there."""

    def __init__(self, orthanc: Orthanc, spool: Spool, say: Callable[[str, str], None]) -> None:
        self._orthanc, self._spool, self._say = orthanc, spool, say
        self._place = spool.folder / f"{orthanc.source}.last"
        self._http = _client(orthanc)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"poll {orthanc.source}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                while self.poll() and not self._stop.is_set():
                    pass
                self._say(f"receive {self._orthanc.source}", "")
            except Exception as error:  # noqa: BLE001 - whatever it answers, it is asked again
                self._say(f"receive {self._orthanc.source}", reason(error))
            self._stop.wait(self._orthanc.poll_s)

    def poll(self) -> bool:
        """Takes one page of changes; whether there are more. Raises TryLater where Orthanc does not answer, or the spool is
        full: the page is read again."""
        last = self._last()
        answer = self._json(f"/changes?since={last}&limit={PAGE}")
        try:
            changes, done, reached = list(answer["Changes"]), bool(answer["Done"]), int(answer["Last"])
            instances = [str(one["ID"]) for one in changes if one["ChangeType"] == "NewInstance"]
        except (KeyError, TypeError, ValueError) as error:
            raise TryLater("this is not Orthanc's list of changes") from error
        if reached < last:
            # The Orthanc was emptied, and counts anew: from its beginning, nothing is taken twice.
            self._note(0)
            return True
        for instance in instances:
            self._take(instance)
        if reached != last:
            self._note(reached)
        return not done

    def _take(self, instance: str) -> None:
        name = f"{self._orthanc.source}-{instance.replace('-', '')}.dcm"
        if not instance.replace("-", "").isalnum():
            raise TryLater("this is not Orthanc's list of changes")
        if self._spool.book.knows(name) or not self._is_allowed(instance):
            return
        self._spool.check_room()
        part = self._spool.part()
        try:
            response = self._http.request("GET", f"{self._orthanc.url}/instances/{instance}/file", preload_content=False)
            try:
                if response.status == 404:
                    return
                if response.status != 200:
                    raise TryLater(f"Orthanc answers {response.status} for an instance")
                with part.open("wb") as file:
                    for chunk in response.stream(CHUNK):
                        file.write(chunk)
            finally:
                response.release_conn()
        except HTTPError as error:
            part.unlink(missing_ok=True)
            raise TryLater(f"Orthanc is out of reach ({type(error).__name__})") from error
        except OSError as error:
            part.unlink(missing_ok=True)
            raise TryLater(f"the spool cannot take a file ({error.strerror}): nothing was taken") from error
        self._spool.take(part, self._orthanc.source, forward=self._orthanc.forward, name=name)

    def _is_allowed(self, instance: str) -> bool:
        if any(peer.ae_title is None and peer.address is None for peer in self._orthanc.allow):
            return True
        metadata = self._json(f"/instances/{instance}/metadata?expand")
        if not isinstance(metadata, dict):
            raise TryLater("this is not Orthanc's answer to a question for metadata")
        sender = (str(metadata.get("RemoteAET", "")), str(metadata.get("RemoteIP", "")))
        return any(peer.admits(*sender) for peer in self._orthanc.allow)

    def _json(self, path: str) -> Any:
        return _answer(self._http, self._orthanc.url + path)

    def _last(self) -> int:
        try:
            return int(self._place.read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise FixInput(f"{self._place}: not the number of a change; remove the file to read all changes again") from error

    def _note(self, last: int) -> None:
        part = self._place.with_suffix(".part")
        with part.open("w") as file:
            file.write(str(last))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._place)
        self._spool.step("place noted")


def version(orthanc: Orthanc) -> str:
    """The version that it says it has. Raises TryLater where it does not answer, FixInput where it does not let us in."""
    with _client(orthanc) as http:
        told = _answer(http, f"{orthanc.url}/system")
    found = re.fullmatch(r"[\w.+-]{1,40}", str(told.get("Version", ""))) if isinstance(told, dict) else None
    if found is None:
        raise TryLater("this is not an Orthanc's answer")
    return found[0]


def _client(orthanc: Orthanc) -> urllib3.PoolManager:
    headers = urllib3.make_headers(basic_auth=f"{orthanc.user}:{orthanc.password or ''}") if orthanc.user else {}
    timeout = urllib3.Timeout(connect=5.0, read=60.0)
    trusted = {"ca_certs": orthanc.ca_file} if orthanc.ca_file else {}
    return urllib3.PoolManager(2, headers=headers, timeout=timeout, retries=False, **trusted)


def _answer(http: urllib3.PoolManager, url: str) -> Any:
    try:
        response = http.request("GET", url)
    except HTTPError as error:
        raise TryLater(f"Orthanc is out of reach ({type(error).__name__})") from error
    if response.status in (401, 403):
        raise FixInput("Orthanc does not accept the user and password")
    if response.status != 200:
        raise TryLater(f"Orthanc answers {response.status}")
    try:
        return json.loads(response.data)
    except ValueError as error:
        raise TryLater("Orthanc's answer is no JSON") from error
