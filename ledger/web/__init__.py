"""A log node over HTTP: records in, checkpoints, tiles, anchors and deposited evidence out. docs/node.md."""

from ledger.web.app import make_app
from ledger.web.limits import Limits
from ledger.web.meter import Meter
from ledger.web.node import Health, Node, Standing
from ledger.web.problems import Busy

__all__ = ["Busy", "Health", "Limits", "Meter", "Node", "Standing", "make_app"]
