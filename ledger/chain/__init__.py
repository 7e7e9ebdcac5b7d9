"""The chain adapter: JSON-RPC, transactions, proven reads of the contracts, and a local chain to try things on."""

from ledger.chain.ledger import Deployment, EnrolledKey, Head, Ledger, LedgerState, Receipt, code_hashes, deploy
from ledger.chain.reading import Depths, Finality, Heights, KnownBlock, Nodes
from ledger.chain.rpc import Endpoint
from ledger.chain.transactions import FeePolicy, Sender

__all__ = [
    "Deployment",
    "Depths",
    "Endpoint",
    "EnrolledKey",
    "FeePolicy",
    "Finality",
    "Head",
    "Heights",
    "KnownBlock",
    "Ledger",
    "LedgerState",
    "Nodes",
    "Receipt",
    "Sender",
    "code_hashes",
    "deploy",
]
