"""What an anchor costs in gas, for batches of several sizes, on a local chain with the shipped contract.

    python -m benchmarks.gas [--batches 1 64 1024 65536] [--hardfork osaka] [--beacons 1] [--json]

Needs anvil (`npm ci` in the repository's root, or SCANSEAL_ANVIL). For each size a log is opened and its anchorer sends two
anchors: the gas of the second counts, since a log is opened once and anchored many times. All gas of the transaction is in it.
EAS's figures are quoted, not measured here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction

from benchmarks import rounds
from ledger.chain.devnet import Devnet

GOAL_GAS, GOAL_AT = 60, 1024
QUOTED = {"EAS, an attested hash": 180_000, "EAS, a leaf in a batch": 24_600}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="scanseal-benchmark-") as name, _chain(Path(name), options.hardfork) as web3:
        result = {
            "chain": web3.client_version,
            "hardfork": options.hardfork,
            "beacons": options.beacons,
            "batches": _measured(web3, options.batches, options.beacons),
            "quoted_not_measured": QUOTED,
        }
    print(json.dumps(result, indent=2) if options.json else _text(result))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024, 65536], help="images an anchor")
    parser.add_argument("--hardfork", default="osaka", help="rules of the chain, as anvil names them (default osaka)")
    parser.add_argument("--beacons", type=int, default=1, help="blocks that an anchor looks up (default 1)")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


@contextmanager
def _chain(folder: Path, hardfork: str) -> Iterator[Web3]:
    devnet = Devnet(folder)
    try:
        yield Web3(HTTPProvider(devnet.up(kind="anvil", hardfork=hardfork).url))
    finally:
        devnet.down()


def _measured(web3: Web3, batches: Sequence[int], beacons: int) -> dict[str, Any]:
    sender = web3.eth.accounts[0]
    built = json.loads(files("ledger.chain").joinpath("artefacts/AnchorLog.json").read_text(encoding="utf-8"))
    factory = web3.eth.contract(abi=built["abi"], bytecode=built["bytecode"])
    deployed = _receipt(web3, factory.constructor(), sender)
    contract = factory(address=deployed["contractAddress"])
    measured: dict[str, Any] = {}
    for batch in batches:
        rounds.say(f"anchors of {batch:,} images")
        first, second = _anchors(web3, contract, sender, batch, beacons)
        measured[str(batch)] = {"gas": second, "gas_an_image": second / batch, "gas_of_a_logs_first": first}
    return measured


def _anchors(web3: Web3, contract: Contract, sender: Any, batch: int, beacons: int) -> tuple[int, int]:
    """Gas of a fresh log's first anchor and of its second."""
    key = hashlib.sha256(b"log of %d" % batch).digest()
    log = contract.functions.open(key, sender).call({"from": sender})
    _receipt(web3, contract.functions.open(key, sender), sender)
    used = []
    for start in (0, batch):
        root = hashlib.sha256(b"root of %d" % start).digest()
        newest = web3.eth.block_number
        blocks = [max(newest - number, 0) for number in range(beacons)]
        anchor = contract.functions.anchor(log, start, start + batch, root, blocks)
        used.append(int(_receipt(web3, anchor, sender)["gasUsed"]))
    return used[0], used[1]


def _receipt(web3: Web3, call: ContractFunction | Any, sender: Any) -> Any:
    receipt = web3.eth.wait_for_transaction_receipt(call.transact({"from": sender}))
    if receipt["status"] != 1:
        raise SystemExit("a transaction of the benchmark was reverted")
    return receipt


def _text(result: dict[str, Any]) -> str:
    lines = [f"{result['chain']}, {result['hardfork']}, {result['beacons']} beacon(s) an anchor"]
    for batch, one in result["batches"].items():
        goal = f"  goal {GOAL_GAS}: {'met' if one['gas_an_image'] <= GOAL_GAS else 'missed'}" if int(batch) == GOAL_AT else ""
        lines.append(
            f"  {int(batch):>7,} images an anchor: {one['gas_an_image']:>12,.2f} gas an image, {one['gas']:,} in all{goal}"
        )
    lines += [f"  quoted, not measured here: {what} {gas:,} gas" for what, gas in result["quoted_not_measured"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
