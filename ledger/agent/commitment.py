"""Storage commitment, passed through (PS3.4 Annex J): the modality asks the agent, the agent asks the PACS, once all that was
received before the question has been forwarded, and what the PACS reports goes back to the modality.

A question is a file in the spool before it is answered, and stays there until the modality has the report. The agent commits to
nothing itself: the PACS does, or nobody.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance  # type: ignore[attr-defined]

from ledger.agent.association import Peer
from ledger.agent.dimse import N_ACTION, N_EVENT_REPORT
from ledger.agent.receiver import Handler
from ledger.agent.spool import Spool, now
from ledger.core.errors import TryLater

LOG = logging.getLogger(__name__)

SUCCESS, CANNOT_UNDERSTAND, OUT_OF_RESOURCES = 0x0000, 0xC000, 0x0213
"""Statuses of PS3.7 Annex C."""
COMMITTED, FAILURES_EXIST = 1, 2
"""Event types, PS3.4 Table J.3-1."""
NO_SUCH_CLASS: Final = 0x0122
"""Failure reason: Referenced SOP Class not supported."""
REQUEST: Final = 1
TURN_S: Final = 1.0
SAME_ASSOCIATION_S: Final = 2.0
"""How long the PACS may report on the association on which it was asked."""
AGAIN_AFTER_S: Final = 600.0
"""A PACS that has not reported by then is asked again: it may have reported while this agent was away."""
EXPIRES_S: Final = 7 * 86_400


@dataclass(frozen=True)
class Route:
    """Who asks, on which source, and whom it is asked of. `modality` is where reports go."""

    source: str
    modality: Peer
    pacs: Peer


@dataclass
class _Question:
    """A question on its way: `waiting` until the PACS was asked, `asked` until it reported, then `reported`."""

    path: Path
    source: str
    received: int
    transaction: str
    state: str
    data: bytes
    event: int = 0
    not_before: float = 0.0
    attempts: int = 0

    def save(self) -> None:
        shown = {name: value for name, value in vars(self).items() if name not in ("path", "data", "not_before", "attempts")}
        part = self.path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(shown | {"data": base64.b64encode(self.data).decode()}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @classmethod
    def load(cls, path: Path) -> _Question:
        known = json.loads(path.read_text(encoding="utf-8"))
        return cls(path, **known | {"data": base64.b64decode(known["data"])})


class Commitment:
    """Keeps the questions of all routes; a `Part` with a thread of its own."""

    def __init__(self, routes: tuple[Route, ...], spool: Spool, say: Callable[[str, str], None]) -> None:
        self._routes = {route.source: route for route in routes}
        self._spool, self._say = spool, say
        self._folder = spool.folder / "commitments"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storage commitment", daemon=True)
        self._questions: dict[str, _Question] = {}

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True, mode=0o700)
        for path in self._folder.glob("*.json"):
            try:
                question = _Question.load(path)
            except (ValueError, KeyError, TypeError):
                path.unlink()
                continue
            self._questions[question.transaction] = question
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30.0)

    def handlers(self, source: str) -> dict[int, Handler]:
        """What a source's listener calls: questions of the modality, reports of the PACS."""
        return {
            N_ACTION: lambda asked, action: self._asked(source, asked, action),
            N_EVENT_REPORT: self._reported,
        }

    # ---- what peers say ----

    def _asked(self, source: str, asked: Dataset, action: int) -> int:
        """Answers when the question is on disk."""
        try:
            transaction = str(asked.TransactionUID)
            if action != REQUEST or not asked.ReferencedSOPSequence:
                return CANNOT_UNDERSTAND
        except Exception:  # noqa: BLE001 - whatever a hostile data set makes of the parser
            return CANNOT_UNDERSTAND
        path = self._folder / f"{secrets.token_hex(12)}.json"
        question = _Question(path, source, now(), transaction, "waiting", encode(asked, True, True) or b"")
        try:
            question.save()
        except OSError:
            return OUT_OF_RESOURCES
        with self._lock:
            before = self._questions.get(transaction)
            self._questions[transaction] = question
        if before is not None:
            before.path.unlink(missing_ok=True)
        return SUCCESS

    def _reported(self, report: Dataset, event: int) -> int:
        try:
            with self._lock:
                question = self._questions.get(str(report.TransactionUID))
            if question is None or event not in (COMMITTED, FAILURES_EXIST):
                return CANNOT_UNDERSTAND
            data = encode(report, True, True) or b""
        except Exception:  # noqa: BLE001 - as above
            return CANNOT_UNDERSTAND
        try:
            return SUCCESS if self._move(question, "reported", 0.0, data, event) else CANNOT_UNDERSTAND
        except OSError:
            return OUT_OF_RESOURCES

    # ---- what is done with it ----

    def _run(self) -> None:
        while not self._stop.wait(TURN_S):
            with self._lock:
                questions = list(self._questions.values())
            for question in questions:
                route = self._routes.get(question.source)
                if route is None or time.monotonic() < question.not_before:
                    continue
                try:
                    self._further(question, route)
                    question.attempts = 0
                except TryLater as error:
                    question.attempts += 1
                    question.not_before = time.monotonic() + min(300.0, 2.0**question.attempts)
                    self._say("storage commitment", str(error))
                except (OSError, RuntimeError, ValueError) as error:
                    question.not_before = time.monotonic() + 60.0
                    self._say("storage commitment", type(error).__name__)

    def _further(self, question: _Question, route: Route) -> None:
        if now() - question.received > EXPIRES_S * 10**6:
            self._say("storage commitment", "a question was given up after a week without an end")
            self._end(question)
        elif question.state in ("waiting", "asked"):
            if self._spool.book.is_forwarded([question.source], question.received):
                self._ask(question, route)
        elif question.state == "reported":
            self._report(question, route)
            self._end(question)

    def _move(self, question: _Question, state: str, not_before: float, data: bytes | None = None, event: int = 0) -> bool:
        """Notes, on disk, that a question has come further; whether it had not ended already. The PACS may report before the
        thread that asked it has noted so. Raises OSError: then it is where it was."""
        with self._lock:
            if question.state == "reported":
                return False
            before = question.state, question.data, question.event
            question.state, question.data, question.event = state, question.data if data is None else data, event
            try:
                question.save()
            except OSError:
                question.state, question.data, question.event = before
                raise
            question.not_before = not_before
            return True

    def _end(self, question: _Question) -> None:
        with self._lock:
            self._questions.pop(question.transaction, None)
        question.path.unlink(missing_ok=True)

    def _ask(self, question: _Question, route: Route) -> None:
        reports = [(evt.EVT_N_EVENT_REPORT, self._on_question)]
        association = _associated(route.pacs, as_provider=False, handlers=reports)
        try:
            if not association.accepted_contexts:
                self._refused(question)
                return
            answer, _ = association.send_n_action(
                _data_set(question.data), REQUEST, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            status = getattr(answer, "Status", None)
            if status != SUCCESS:
                word = "does not answer" if status is None else f"answers status 0x{status:04X}"
                raise TryLater(f"{route.pacs.name} {word} when asked for storage commitment")
            self._move(question, "asked", time.monotonic() + AGAIN_AFTER_S)
            deadline = time.monotonic() + SAME_ASSOCIATION_S
            while question.state == "asked" and association.is_established and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            if association.is_established:
                association.release()

    def _on_question(self, event: Any) -> tuple[int, None]:
        """A report on the association on which the PACS was asked."""
        try:
            return self._reported(event.event_information, event.event_type), None
        except Exception:  # noqa: BLE001 - as above
            return CANNOT_UNDERSTAND, None

    def _refused(self, question: _Question) -> None:
        """The PACS commits to nothing: that is the report."""
        asked = _data_set(question.data)
        failed = []
        for one in asked.ReferencedSOPSequence:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID
            item.FailureReason = NO_SUCH_CLASS
            failed.append(item)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        report.FailedSOPSequence = failed
        self._move(question, "reported", 0.0, encode(report, True, True) or b"", FAILURES_EXIST)

    def _report(self, question: _Question, route: Route) -> None:
        association = _associated(route.modality, as_provider=True, handlers=[])
        try:
            if not association.accepted_contexts:
                raise TryLater(f"{route.modality.name} takes no reports of storage commitment")
            answer, _ = association.send_n_event_report(
                _data_set(question.data), question.event, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            if getattr(answer, "Status", None) != SUCCESS:
                raise TryLater(f"{route.modality.name} does not take a report of storage commitment")
        finally:
            if association.is_established:
                association.release()


def _data_set(data: bytes) -> Dataset:
    return decode(BytesIO(data), True, True)


def _associated(peer: Peer, *, as_provider: bool, handlers: list[Any]) -> Any:
    """An association for storage commitment, as its user or (towards a modality) as its provider."""
    entity = AE(ae_title=peer.calling_ae_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = min(30.0, peer.timeout_s)
    entity.connection_timeout = 10.0
    roles = [build_role(StorageCommitmentPushModel, scp_role=True)] if as_provider else []
    association = entity.associate(
        peer.host,
        peer.port,
        contexts=[build_context(StorageCommitmentPushModel, ImplicitVRLittleEndian)],
        ae_title=peer.ae_title,
        ext_neg=list(roles),
        evt_handlers=handlers,
        tls_args=None if peer.tls is None else (peer.tls, peer.host),
    )
    if association.is_rejected or association.acceptor.primitive is None:
        raise TryLater(f"{peer.name} ({peer.ae_title}) is out of reach for storage commitment")
    return association
