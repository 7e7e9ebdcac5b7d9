"""Bytes of regular files, and of nothing else: no pipe holds the reader up, no device feeds it for ever."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ledger.core.errors import NeedPermission, Unreadable
from ledger.dicom.limits import Limits


def whole(path: Path, limits: Limits) -> bytes:
    """Every byte of a file of at most `limits.file_bytes`. Raises Unreadable, or NeedPermission when the system refuses."""
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limits.file_bytes:
            raise Unreadable(f"a file of {size} bytes: {limits.file_bytes} are allowed")
        return file.readall()


def head(path: Path, length: int) -> bytes:
    """The first `length` bytes of a file, or all when it is shorter. Raises as `whole` does."""
    with opened(path) as file:
        return file.read(length)


@contextmanager
def opened(path: Path) -> Iterator[FileIO]:
    """A regular file, to be read while the context lasts. Raises as `whole` does, inside of the context too."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with FileIO(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unreadable("not a regular file")
            yield file
    except PermissionError as error:
        raise NeedPermission("the system does not let us read the file") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"the file can't be read: {getattr(error, 'strerror', None) or 'no such path'}") from error
