"""The count closes: what a modality was told, what the PACS has and what the site's store says are one and the same.

One checker for all tests of faults. `unclosed` gives a sentence for everything that does not fit, `close` waits until nothing
is under way any more and then asks that there is none:

1. every image that was answered with success is in the PACS, once, byte for byte, and what is there was sent;
2. every such image has one record, and there is no record of anything else;
3. each key's counters are 0 to n-1, each record naming the one before;
4. the spool waits for nothing, has lost nothing, has no file without a row, and nothing half received; its rows name records;
5. the log has every record once, at 0 to n-1, and is the tree that its checkpoint signs.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from ledger.log import check
from ledger.store.log import LogStore
from ledger.wiring.assembly import opened
from ledger.wiring.site import read_site
from tests.agent.modality import digest, stripped
from tests.journeys.orthanc import Orthanc


class Pacs(Protocol):
    def held(self) -> Mapping[str, Sequence[str]]:
        """instance -> digest of the data set of each copy that it has."""


class InOrthanc:
    """What an Orthanc has; what was read once is not read again."""

    def __init__(self, orthanc: Orthanc) -> None:
        self._orthanc = orthanc
        self._known: dict[str, tuple[str, str]] = {}

    def held(self) -> dict[str, list[str]]:
        listed = [str(one) for one in json.loads(self._orthanc.call("/instances"))]
        for one in listed:
            if one not in self._known:
                uid = json.loads(self._orthanc.call(f"/instances/{one}"))["MainDicomTags"]["SOPInstanceUID"]
                self._known[one] = uid, digest(stripped(self._orthanc.call(f"/instances/{one}/file")))
        found: dict[str, list[str]] = defaultdict(list)
        for one in listed:
            found[self._known[one][0]].append(self._known[one][1])
        return found


def close(
    site: Path, pacs: Pacs | None, sent: Mapping[str, str], taken: set[str], *, patience_s: float = 60.0, anchored: bool = False
) -> None:
    """`sent`: instance -> digest of its data set, of all images that this site ever got; `taken`: those answered with success.
    With `anchored` every record has to be in the log."""
    deadline = time.monotonic() + patience_s
    while under_way(site, anchored=anchored) or set(taken) - _sealed(site, taken):
        assert time.monotonic() < deadline, (under_way(site, anchored=anchored), unclosed(site, pacs, sent, taken))
        time.sleep(0.2)
    found = unclosed(site, pacs, sent, taken)
    assert not found, found


def under_way(site: Path, *, anchored: bool = False) -> list[str]:
    """What has not come to its end yet."""
    database = _database(site)
    found = [f"{row['source']}: {row['forward']}, {row['seal']}" for row in _rows(database, "spooled") if _waits(row)]
    if anchored:
        found += ["a record that is not in the log" for row in _rows(database, "record") if row["log_index"] is None]
    return found


def unclosed(site: Path, pacs: Pacs | None, sent: Mapping[str, str], taken: set[str]) -> list[str]:
    found: list[str] = []
    if pacs is not None:
        found += _in_the_pacs(pacs.held(), sent, taken)
    database = _database(site)
    records = _rows(database, "record")
    found += _records(site, records, sent, taken)
    found += _counters(records)
    found += _spool(site, database, records)
    found += _log(site, records)
    return found


def _in_the_pacs(held: Mapping[str, Sequence[str]], sent: Mapping[str, str], taken: set[str]) -> list[str]:
    found = [f"the PACS does not have {uid}, which was taken" for uid in sorted(taken - set(held))]
    for uid, copies in held.items():
        if uid not in sent:
            found.append(f"the PACS has {uid}, which nobody sent")
        elif set(copies) != {sent[uid]}:
            found.append(f"the PACS has other bytes of {uid}")
        if len(copies) != 1:
            found.append(f"the PACS has {uid} {len(copies)} times")
    return found


def _records(site: Path, records: Sequence[Mapping[str, Any]], sent: Mapping[str, str], taken: set[str]) -> list[str]:
    found = []
    counted = Counter(row["instance_token"] for row in records)
    tokens = _tokens(site, sent)
    for uid in sent:
        count = counted.pop(tokens[uid], 0)
        if count > 1:
            found.append(f"{uid} has {count} records")
        if not count and uid in taken:
            found.append(f"{uid} was taken and has no record")
    return found + [f"{count} records of what nobody sent" for count in counted.values()]


def _counters(records: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    last: dict[bytes, tuple[int, bytes]] = {}
    for row in sorted(records, key=lambda row: (row["signer"], row["counter"])):
        before = last.get(row["signer"], (-1, bytes(32)))
        if row["counter"] != before[0] + 1:
            found.append(f"counter {row['counter']} after {before[0]}")
        if row["entry"][160:192] != before[1]:
            found.append(f"record {row['counter']} does not name the one before")
        last[row["signer"]] = row["counter"], row["record_id"]
    return found


def _spool(site: Path, database: Path, records: Sequence[Mapping[str, Any]]) -> list[str]:
    folder, ids = site / "spool", {row["record_id"] for row in records}
    rows = _rows(database, "spooled")
    found = [f"a file in incoming: {path.name}" for path in (folder / "incoming").iterdir()]
    named = {row["name"] for row in rows}
    found += [f"a file without a row: {path.name}" for path in folder.glob("*.dcm") if path.name not in named]
    for row in rows:
        if _waits(row):
            found.append(f"{row['name']} waits: {row['forward']}, {row['seal']}")
            if not (folder / row["name"]).exists():
                found.append(f"{row['name']} is lost")
        if row["seal"] == "sealed" and row["record_id"] not in ids:
            found.append(f"{row['name']} is said to be sealed, in a record that there is not")
    return found


def _log(site: Path, records: Sequence[Mapping[str, Any]]) -> list[str]:
    indices = sorted(row["log_index"] for row in records if row["log_index"] is not None)
    if indices != list(range(len(indices))):
        return [f"the log has the records at {indices}"]
    with opened(read_site(site), read_only=True) as store:
        trusted = store.site.trust().logs[0]
        if store.log(to_write=False).head().size == 0:
            return [] if not indices else ["records of a log without a head"]
        head = check(LogStore(store.store), trusted.origin, trusted.key)
    # A record is in the log before the journal notes where.
    return [] if head.size >= len(indices) else [f"{len(indices)} records say that they are in a log of {head.size}"]


def _sealed(site: Path, uids: set[str]) -> set[str]:
    known = {row["instance_token"] for row in _rows(_database(site), "record")}
    return {uid for uid, token in _tokens(site, uids).items() if token in known}


def _tokens(site: Path, uids: Any) -> dict[str, bytes]:
    with opened(read_site(site), read_only=True) as store:
        return {uid: store.journal._token("instance", uid) for uid in uids}


def _waits(row: Mapping[str, Any]) -> bool:
    return "waiting" in (row["forward"], row["seal"])


def _database(site: Path) -> Path:
    return site / "store.sqlite"


def _rows(database: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
