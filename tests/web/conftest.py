from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.web.nodes import Desk, serving


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path) as running:
        yield running


@pytest.fixture
def web(desk: Desk) -> Iterator[httpx.Client]:
    """Asks the node over HTTP."""
    with serving(desk.app) as client:
        yield client


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Desk]:
    """A node that sequences nothing."""
    with Desk(tmp_path, carries=False) as running:
        yield running
