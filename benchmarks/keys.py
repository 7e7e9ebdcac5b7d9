"""Signatures a second of a key on a token (PKCS#11) beside the same kind of key in memory, for both curves.

    python -m benchmarks.keys [--signatures 2000] [--rounds 5] [--json]
    python -m benchmarks.keys --key site/keys/ct1.pkcs11.toml      # a key of your own token instead

Without --key it makes a SoftHSM2 token in a temporary folder. What is timed is the signer as sealing uses it: the signature,
low s, and the check against the public key before the signature is given out. The check is shown by itself too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import rounds
from benchmarks.rounds import Spread
from ledger.core import signatures
from ledger.keys import pkcs11, signers
from ledger.keys.pkcs11 import Pkcs11Signer, Place
from ledger.keys.signers import Curve
from tests.keys.softhsm import PIN, module, softhsm

CURVES: tuple[Curve, ...] = ("p256", "secp256k1")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with _keys(options.key) as keys:
        measured = {curve: _measure(curve, token, options) for curve, token in keys.items()}
    if options.json:
        print(json.dumps({"machine": rounds.machine(), "signatures": options.signatures, "keys": measured}))
        return
    for curve, rows in measured.items():
        print(f"{curve}: {options.signatures} signatures a round, {options.rounds} rounds")
        for name, row in rows.items():
            beside = "" if name == "memory" else f"   {row['x_memory']['median']:.2f} x the time of memory"
            print(f"  {name:<8} {row['per_s']:>10,.0f} /s{beside}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signatures", type=int, default=2000, help="signatures a round (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--key", type=Path, help="a key file, to measure the token that it names")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    return parser.parse_args(arguments)


@contextmanager
def _keys(file: Path | None) -> Iterator[dict[Curve, Pkcs11Signer]]:
    if file is not None:
        signer = pkcs11.load(file)
        yield {"p256" if signatures.algorithm_of(signer.public_key_der) == "p256" else "secp256k1": signer}
        return
    if module() is None:
        raise SystemExit("SoftHSM2 is missing: apt-get install softhsm2")
    with tempfile.TemporaryDirectory() as name:
        hsm = softhsm(Path(name) / "hsm")
        os.environ.update(hsm.env)
        pin = Path(name) / "pin"
        pin.write_text(PIN)
        token = hsm.new_token()
        yield {curve: pkcs11.make(Place(hsm.module, token, curve, pin_file=pin), curve) for curve in CURVES}


def _measure(curve: Curve, token: Pkcs11Signer, options: argparse.Namespace) -> dict[str, Any]:
    memory = signers.new_key(curve)
    digests = [number.to_bytes(32, "big") for number in range(1, options.signatures + 1)]
    signed = [memory.sign(digest) for digest in digests]

    def check() -> None:
        for digest, signature in zip(digests, signed, strict=True):
            signatures.check(memory.public_key_der, digest, signature)

    took = rounds.in_turns(
        {
            "memory": lambda: rounds.timed(lambda: [memory.sign(digest) for digest in digests]),
            "token": lambda: rounds.timed(lambda: [token.sign(digest) for digest in digests]),
            "check": lambda: rounds.timed(check),
        },
        options.rounds,
        curve,
    )
    return {
        name: {
            "per_s": options.signatures / Spread.of([one.wall for one in each]).median,
            "x_memory": asdict(rounds.ratio(each, took["memory"], "wall")),
        }
        for name, each in took.items()
    }


if __name__ == "__main__":
    main()
