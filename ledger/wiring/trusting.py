"""Trust files: made from a site or from a bundle and a site's certificate, kept up to date from the chain, shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from ledger.core import certificates, stateproof
from ledger.core.errors import FixInput
from ledger.core.evidence import Bundle
from ledger.core.trust import Authority, Block, Contract, DeviceNotice, KeyNotice, Trust, TrustedLog
from ledger.wiring import site as sites
from ledger.wiring.bundles import bundle_files, read_bundle


def init_trust(
    output: Path, bundle: Path | None, authorities: Sequence[Path], rpc: tuple[str, ...], site: Path | None
) -> dict[str, Any]:
    """A new trust file. From a bundle it takes only names of contracts and log: their code, and who they are, come from the
    nodes, and the person who makes the file answers for them."""
    if output.exists():
        raise FixInput(f"{output} exists already: it is not overwritten (`scanseal trust update` adds to it)")
    if bundle is None:
        believed = sites.open_site(site).trust()
        if rpc:
            believed = believed.model_copy(update={"rpc": rpc})
    else:
        if not authorities or not rpc:
            raise FixInput("a trust file from a bundle needs the site's --authority ca.pem and an --rpc node")
        believed = _from_bundle(read_bundle(bundle), authorities, rpc)
    sites.write_trust(output, believed)
    return _shown(output, believed)


def update_trust(file: Path | None, bundles: Sequence[Path], site: Path | None) -> dict[str, Any]:
    """Adds final blocks, revocations and devices that all of the file's RPC nodes agree on."""
    from ledger.wiring.chain import connect

    path = file if file is not None else sites.open_site(site).trust_path
    trust = sites.read_trust(path)
    if not trust.rpc:
        raise FixInput(f'{path} names no rpc node: add `rpc = ["http://..."]`')
    chain = connect(trust.rpc, trust)
    parsed = [read_bundle(found) for named in bundles for found in bundle_files(named)]
    wanted = {stateproof.parse_header(state.header).number for bundle in parsed for state in bundle.states}
    head, hashes = chain.final_blocks(sorted(wanted))
    unsettled = [number for number in wanted if number > head]
    if unsettled:
        raise FixInput(f"block {max(unsettled)} of these bundles is not final yet (block {head} is): wait, then update again")
    for block in trust.blocks:
        if hashes.get(block.number, block.hash) != block.hash:
            raise FixInput(f"the nodes have another block {block.number} than {path} trusts: this is not the same chain")
    known = {block.number: block.hash for block in trust.blocks} | hashes
    notices = {notice.key: notice for notice in trust.keys}
    devices = {notice.device: notice for notice in trust.devices}
    names = _names(parsed)
    for one in chain.enrolled():
        known_dates = {"retired_at": one.state.retired_at, "compromised_since": one.state.compromised_since}
        if any(known_dates.values()):
            notices[one.key] = KeyNotice(key=one.key, **known_dates)
        if one.seals_everything_since:
            known_as = devices[one.device].name if one.device in devices else "a device that the chain knows"
            devices[one.device] = DeviceNotice(
                device=one.device,
                name=names.get(one.device, known_as),
                seals_everything_since=one.seals_everything_since,
            )
    updated = trust.model_copy(
        update={
            "blocks": tuple(Block(number=number, hash=known[number]) for number in sorted(known)),
            "keys": tuple(notices.values()),
            "devices": tuple(devices.values()),
        }
    )
    sites.write_trust(path, updated)
    return _shown(path, updated)


def show_trust(file: Path | None, site: Path | None) -> dict[str, Any]:
    path = file if file is not None else sites.open_site(site).trust_path
    return _shown(path, sites.read_trust(path))


def _names(bundles: Sequence[Bundle]) -> dict[bytes, str]:
    """Device id -> what the bundles' certificates call it."""
    named = [certificates.parse(der).holder() for bundle in bundles for der in bundle.certificates]
    return {holder.id: holder.name for holder in named}


def _from_bundle(bundle: Bundle, authorities: Sequence[Path], rpc: tuple[str, ...]) -> Trust:
    from ledger.wiring.chain import code_hashes_and_genesis, shipped

    claimed = bundle.ledger
    addresses = (claimed.anchor_log, claimed.device_registry)
    chain_id, genesis, codes = code_hashes_and_genesis(rpc, addresses)
    if chain_id != claimed.chain_id:
        raise FixInput(f"the bundle is for chain {claimed.chain_id}, the node is on chain {chain_id}")
    for address, code, name in zip(addresses, codes, ("AnchorLog", "DeviceRegistry"), strict=True):
        if code != shipped(name):
            raise FixInput(
                f"the contract at 0x{address.hex()} is not this package's {name} (its code hashes to 0x{code.hex()}): whoever "
                "made the bundle could have deployed one of their own; get the trust file from the site itself"
            )
    accepted = [sites.read_certificate(path) for path in authorities]
    issued = [certificates.parse(der) for der in bundle.certificates]
    if not any(one.is_issued_by(authority) for one in issued for authority in accepted):
        raise FixInput("none of the bundle's device certificates is issued by this --authority: get ca.pem from that site")
    return Trust(
        format="scanseal-trust-1",
        chain_id=chain_id,
        genesis_hash=genesis,
        rpc=rpc,
        anchor_log=Contract(address=addresses[0], code_hash=codes[0]),
        device_registry=Contract(address=addresses[1], code_hash=codes[1]),
        logs=(TrustedLog(origin=claimed.origin, log_id=claimed.log_id, key=claimed.log_key),),
        authorities=tuple(
            Authority(name=_organisation(one.x509), certificate=one.x509.public_bytes(Encoding.PEM).decode())
            for one in accepted
        ),
    )


def _organisation(certificate: Any) -> str:
    from cryptography.x509.oid import NameOID

    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _shown(path: Path, trust: Trust) -> dict[str, Any]:
    return {
        "file": str(path),
        "chain_id": trust.chain_id,
        "genesis_hash": "0x" + trust.genesis_hash.hex(),
        "rpc": list(trust.rpc),
        "anchor_log": "0x" + trust.anchor_log.address.hex(),
        "device_registry": "0x" + trust.device_registry.address.hex(),
        "logs": [log.origin for log in trust.logs],
        "authorities": [f"{name} (SHA-256 {one.fingerprint.hex()})" for name, one in trust.issuers()],
        "blocks": len(trust.blocks),
        "newest_block": max((block.number for block in trust.blocks), default=None),
        "key_notices": len(trust.keys),
        "devices": [notice.name for notice in trust.devices],
        "finality": trust.policy.finality,
        "clock_tolerance_s": trust.policy.clock_tolerance_s,
    }
