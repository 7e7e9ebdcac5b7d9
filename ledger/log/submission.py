"""Records that other sites hand in to be sequenced: what is well-formed, and what fits to what is known of their keys.

A key's records form one chain: counters without gaps, each naming the one before. Two agents with one key cannot both extend
it, so the second of two records that contradict each other is proof that the key is used twice, and is kept as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ledger.core import typeddata
from ledger.core.errors import EvidenceInvalid, FixInput, NeedPermission
from ledger.core.records import HEAD_SIZE, SIGNATURE_SIZE, TYPES
from ledger.core.typeddata import Domain

NO_RECORD: Final = bytes(32)
COUNTER_LIMIT: Final = 1 << 63
"""No key signs so many records; a database counts to here."""
_WORD: Final = 32
_LAYOUTS: Final = {
    typeddata.type_hash(name, kind.FIELDS): tuple(field_type for field_type, _ in kind.FIELDS) for name, kind in TYPES.items()
}


class OutOfOrder(FixInput):
    """Records that do not follow what is known of their key: send those from `next_counter` on."""

    def __init__(self, key: bytes, counter: int, next_counter: int) -> None:
        super().__init__(
            f"record {counter} of key 0x{key.hex()} does not follow: {next_counter} of its records are known here, so the next "
            f"one has counter {next_counter}"
        )
        self.key, self.counter, self.next_counter = key, counter, next_counter


class KeyForked(NeedPermission):
    """A key that signed two records which contradict each other. `proof` is the log entry that does not fit what is known."""

    def __init__(self, key: bytes, proof: bytes) -> None:
        self.key, self.proof = key, proof
        self.counter = int.from_bytes(proof[128:160], "big")
        super().__init__(
            f"key 0x{key.hex()} signed two histories, which differ at counter {self.counter}: two agents use it. Nothing of it "
            "is taken from anybody until the node's operator has found out which of them is the device, and releases the key"
        )


@dataclass(frozen=True, slots=True)
class Offered:
    """A log entry as it was handed in, with what its words say."""

    entry: bytes
    record_id: bytes
    signer: bytes
    counter: int
    previous: bytes

    @property
    def signature(self) -> bytes:
        return self.entry[-SIGNATURE_SIZE:]


def read(entry: bytes, domain: Domain) -> Offered:
    """The record of a log entry (FORMAT.md §3), its signature unchecked. Raises EvidenceInvalid (step record)."""
    layout = _LAYOUTS.get(entry[:_WORD])
    if layout is None:
        raise EvidenceInvalid("a log entry is of no type of FORMAT.md §3", "record")
    if len(entry) != _WORD * (1 + len(layout)) + SIGNATURE_SIZE:
        raise EvidenceInvalid(f"a log entry has {len(entry)} bytes, which its type does not", "record")
    for place, kind in enumerate(layout, 1):
        if kind == "uint64" and any(entry[_WORD * place : _WORD * place + 24]):
            raise EvidenceInvalid("a log entry has a number of more than 64 bits", "record")
    words = [entry[start : start + _WORD] for start in range(3 * _WORD, HEAD_SIZE, _WORD)]
    counter, previous = int.from_bytes(words[1], "big"), words[2]
    if counter >= COUNTER_LIMIT or (counter == 0) != (previous == NO_RECORD):
        raise EvidenceInvalid("a log entry's counter and its previous record do not fit together", "record")
    return Offered(entry, typeddata.digest(domain, entry[:-SIGNATURE_SIZE]), words[0], counter, previous)


def by_key(offered: Sequence[Offered]) -> dict[bytes, list[Offered]]:
    """The records of each key, in the order given. Raises EvidenceInvalid where a key's are not one after the other."""
    keys: dict[bytes, list[Offered]] = {}
    for one in offered:
        before = keys.setdefault(one.signer, [])
        if before and one.counter != before[-1].counter + 1:
            raise EvidenceInvalid(f"the records of key 0x{one.signer.hex()} are not in the order of their counters", "record")
        before.append(one)
    return keys


@dataclass
class KeyChain:
    """What is known of one key: its newest record (counter, record id), the entries in the slots that are asked about, and the
    contradiction, where there is one (its counter, the entry)."""

    signer: bytes
    tail: tuple[int, bytes] | None = None
    held: dict[int, bytes] = field(default_factory=dict)
    forked: bytes | None = None

    def extended(self, offered: Sequence[Offered]) -> tuple[KeyChain, list[Offered]]:
        """The chain with these records of its key, one after the other, and those of them that are new. `self` stays as it is.

        Raises KeyForked (another entry has the slot, or the record names another one before it than is known), OutOfOrder.
        """
        if self.forked is not None:
            raise KeyForked(self.signer, self.forked)
        grown = KeyChain(self.signer, self.tail, dict(self.held))
        new: list[Offered] = []
        for one in offered:
            following = 0 if grown.tail is None else grown.tail[0] + 1
            if one.counter > following:
                raise OutOfOrder(one.signer, one.counter, following)
            if one.counter < following:
                if grown.held[one.counter] != one.entry:
                    raise KeyForked(one.signer, one.entry)
                continue
            if grown.tail is not None and one.previous != grown.tail[1]:
                raise KeyForked(one.signer, one.entry)
            grown.tail, grown.held[one.counter] = (one.counter, one.record_id), one.entry
            new.append(one)
        return grown, new


@dataclass(frozen=True)
class Submission:
    """What one request hands in: all of it is taken or nothing. `certificates`: key id -> DER, of keys that are new here."""

    client: str
    offered: tuple[Offered, ...]
    certificates: Mapping[bytes, bytes]
