"""How much an untrusted object may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds on one image, one archive and the decoding child process. All are inclusive; sizes in bytes."""

    file_bytes: int = 2 * _GIB
    """A file, an archive's entry, or the inflated data set of the deflated transfer syntax."""
    elements: int = 2_000_000
    """Elements walked in one object, those in sequences of undefined length included."""
    depth: int = 32
    """Sequences inside sequences."""
    frame_bytes: int = 512 * _MIB
    """One decoded frame."""
    decoded_bytes: int = 16 * _GIB
    """All decoded frames of one object; only one at a time is in memory."""
    decoder_memory_bytes: int = 4 * _GIB
    """Address space of the decoding child process (RLIMIT_AS), libraries included."""
    decoder_time_s: float = 60.0
    """Decoding one image, and starting the child process when it is not running."""
    archive_entries: int = 1_000_000
    """Entries of one zip archive."""
    archive_ratio: int = 1_000
    """Inflated to stored size of one entry above 1 MiB: DICOM's best cases stay far below it."""


DEFAULT_LIMITS = Limits()
