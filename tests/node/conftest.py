"""A log node that runs, and a site that is its client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.ends import Node, Site, running
from tests.web.nodes import Agent


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "node").mkdir()
    with running(tmp_path / "node") as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, node: Node) -> Iterator[Site]:
    made = Site(tmp_path, node, Agent())
    yield made
    made.store.close()
