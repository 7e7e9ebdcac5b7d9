"""`init`, `devnet`, `deploy`, `device`, `trust`, `demo`: setting a site up and looking after its keys."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ledger.cli.output import OUT, iso, moment, plain, write_json
from ledger.cli.tokens import (
    ExistingKeyOption,
    KeyIdOption,
    KeyLabelOption,
    PinEnvOption,
    PinFileOption,
    Pkcs11Option,
    TokenOption,
    on_token,
)
from ledger.cli.verifying import JsonOption, SiteOption
from ledger.core.errors import FixInput
from ledger.wiring import assembly

if TYPE_CHECKING:
    pass

devnet_app = typer.Typer(help="A local chain (anvil, or ganache) to try things on.", no_args_is_help=True)
device_app = typer.Typer(
    help="Devices: request (device), approve (registrar), list, rotate, retire, revoke.", no_args_is_help=True
)
trust_app = typer.Typer(help="The trust file: what a verifier believes without asking.", no_args_is_help=True)
Curve = Literal["secp256k1", "p256"]
DEFAULT_RPC = "http://127.0.0.1:8545"


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Set up")(init)
    app.add_typer(devnet_app, name="devnet", rich_help_panel="Set up")
    app.command(rich_help_panel="Set up")(deploy)
    app.add_typer(device_app, name="device", rich_help_panel="Set up")
    app.add_typer(trust_app, name="trust", rich_help_panel="Verify")
    app.command(rich_help_panel="Set up")(demo)


def init(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")] = Path(),
    name: Annotated[str, typer.Option(help="The site's name, as certificates and the log show it.")] = "My site",
    rpc: Annotated[list[str] | None, typer.Option(help="JSON-RPC URL of a chain node. Repeatable: all must agree.")] = None,
    keep_passphrase: Annotated[
        bool, typer.Option("--keep-passphrase", help="Make a passphrase and keep it in the folder (devnets only).")
    ] = False,
    node: Annotated[str | None, typer.Option(help="URL of the log node that keeps this site's log and anchors it.")] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="The token that the node's operator gave this site.")
    ] = None,
    node_ca: Annotated[
        Path | None, typer.Option("--node-ca", help="Whom to believe that the node is itself (PEM; default: the system).")
    ] = None,
    node_cert: Annotated[
        Path | None, typer.Option("--node-cert", help="What to show to a node that asks for certificates (PEM).")
    ] = None,
    node_key: Annotated[Path | None, typer.Option("--node-key", help="Its key (PEM, not encrypted).")] = None,
    trust: Annotated[Path | None, typer.Option(help="The node's trust file.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a site: its certificate authority, its log's key, its chain account, all encrypted with SCANSEAL_PASSPHRASE.

    With --node it has none of these, but keys for its devices: the node keeps the log and anchors it (docs/node.md).

    Example: [bold]SCANSEAL_PASSPHRASE=... scanseal init site --name "Site A"[/bold]
    """
    if node is not None:
        files = (token_file, node_ca, node_cert, node_key)
        _init_at_node(folder, name, tuple(rpc or ()), node, files, trust, keep_passphrase, json)
        return
    if token_file or node_ca or node_cert or node_key or trust:
        raise FixInput("--token-file, --node-ca, --node-cert, --node-key and --trust go with --node")
    made = assembly.create_site(folder, name, tuple(rpc or [DEFAULT_RPC]), keep_passphrase=keep_passphrase)
    if json:
        write_json(made)
        return
    OUT.print(f"site {plain(name)} in {plain(str(folder))}; its chain account is {made['account']}")
    OUT.print("next: [bold]scanseal devnet up[/bold] or fund the account, then [bold]scanseal deploy[/bold]")


def _init_at_node(
    folder: Path,
    name: str,
    rpc: tuple[str, ...],
    node: str,
    files: tuple[Path | None, ...],
    trust: Path | None,
    keep_passphrase: bool,
    json: bool,
) -> None:
    from ledger.wiring import remote
    from ledger.wiring.site import RemoteNode

    token, ca, certificate, key = (None if one is None else str(one) for one in files)
    if token is None or trust is None:
        raise FixInput("--node needs --token-file and --trust: the node's operator gives you both")
    if (certificate is None) != (key is None):
        raise FixInput("--node-cert and --node-key go together")
    there = RemoteNode(node, token, ca, certificate, key)
    made = remote.create(folder, name, there, trust, rpc, keep_passphrase=keep_passphrase)
    if json:
        write_json(made)
        return
    OUT.print(f"site {plain(name)} in {plain(str(folder))} hands in to {plain(node)}")
    OUT.print("next: [bold]scanseal device request NAME[/bold], and send devices/NAME.csr to the node's operator")


@devnet_app.command("up")
def devnet_up(
    site: SiteOption = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes that of the site's RPC URL.")] = 0,
    json: JsonOption = False,
) -> None:
    """Start a local chain in the background; its state survives restarts. Running already is fine.

    Example: [bold]scanseal devnet up[/bold]
    """
    _show_devnet(assembly.devnet_up(site, port), json)


@devnet_app.command("down")
def devnet_down(site: SiteOption = None, json: JsonOption = False) -> None:
    """Stop the local chain and keep its state.

    Example: [bold]scanseal devnet down[/bold]
    """
    status = assembly.devnet_down(site)
    if json:
        write_json(status)
    else:
        OUT.print("devnet is stopped; its state is kept for the next [bold]scanseal devnet up[/bold]")


@devnet_app.command("status")
def devnet_status(site: SiteOption = None, json: JsonOption = False) -> None:
    """Say whether the local chain runs, and where.

    Example: [bold]scanseal devnet status[/bold]
    """
    _show_devnet(assembly.devnet_status(site), json)


def _show_devnet(status: dict[str, object], json: bool) -> None:
    if json:
        write_json(status)
    elif status["running"]:
        OUT.print(f"devnet runs at {status['url']}, chain {status['chain_id']}, block {status['block']}, log {status['log']}")
    else:
        OUT.print("devnet is not running: start it with [bold]scanseal devnet up[/bold]")


def deploy(site: SiteOption = None, json: JsonOption = False) -> None:
    """Deploy the contracts, open the site's log on chain, and write the trust file. Done already is fine.

    Example: [bold]scanseal deploy[/bold]
    """
    deployed = assembly.deploy(site)
    if json:
        write_json(deployed)
        return
    word = "deployed" if deployed["new"] else "deployed already"
    OUT.print(f"{word}: AnchorLog {deployed['anchor_log']}, DeviceRegistry {deployed['device_registry']}")
    OUT.print(f"trust file {plain(str(deployed['trust']))}: give it to verifiers")
    OUT.print("next: [bold]scanseal device request ct1 ...[/bold]")


@device_app.command("request")
def device_request(
    name: Annotated[str, typer.Argument(help="A short name for the device here, such as ct1.")],
    manufacturer: Annotated[str, typer.Option(help="As in the image's Manufacturer.")] = "",
    model: Annotated[str, typer.Option(help="As in ManufacturerModelName.")] = "",
    serial: Annotated[str, typer.Option(help="As in DeviceSerialNumber.")] = "",
    ae_title: Annotated[str, typer.Option("--ae", help="Its DICOM AE title.")] = "",
    person: Annotated[
        str | None, typer.Option("--person", help="A person's key instead: the printed name, as signatures show it.")
    ] = None,
    at: Annotated[str | None, typer.Option("--at", help="The site that it stands at, where that is not this one.")] = None,
    curve: Annotated[
        Curve, typer.Option(help="secp256k1 (keystore v3) or p256 (PEM); a token may know p256 only.")
    ] = "secp256k1",
    pkcs11: Pkcs11Option = None,
    token: TokenOption = None,
    key_label: KeyLabelOption = None,
    key_id: KeyIdOption = None,
    pin_file: PinFileOption = None,
    pin_env: PinEnvOption = None,
    existing_key: ExistingKeyOption = False,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """At the device: make a key and a certificate request for the registrar. The key never leaves this machine, or its token.

    A gateway, an archive or a reading room has a key as a device has; a person who signs has one with --person.

    Example: [bold]scanseal device request ct1 --manufacturer Acme --model "CT 3000" --serial 42 --ae CT1[/bold]
    """
    from ledger.core.certificates import Device, Person
    from ledger.wiring import devices

    named = [f"--{label}" for label, value in (("manufacturer", manufacturer), ("model", model), ("serial", serial)) if value]
    if person is not None and (named or ae_title):
        raise FixInput("a person has no manufacturer, model, serial or AE title: leave them out with --person")
    made = devices.request_device(
        site,
        name,
        curve,
        lambda here: (
            Person(person, at or here) if person is not None else Device(manufacturer, model, serial, ae_title, at or here)
        ),
        on_token(pkcs11, token, key_label, key_id, pin_file, pin_env, existing_key),
    )
    if json:
        write_json(made)
        return
    if "token" in made:
        OUT.print(f"the key is on the token {plain(str(made['token']))}, and cannot be taken out")
        if not made["never_outside"]:
            OUT.print(
                "[bold yellow]it was not made there, or could be taken out once: a copy may exist elsewhere[/bold yellow]"
            )
    OUT.print(f"key {made['key']}, request {plain(str(made['request']))}")
    OUT.print(f"next, by the registrar: [bold]scanseal device approve {plain(str(made['request']))}[/bold]")


@device_app.command("approve")
def device_approve(
    request: Annotated[Path, typer.Argument(help="The request's .csr file, or the device's name here.")],
    roles: Annotated[str, typer.Option(help="What the key may sign, comma separated.")] = "acquire",
    seals_everything_since: Annotated[
        str | None, typer.Option(help="From this day (YYYY-MM-DD or 'now') the device seals all it makes.")
    ] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """At the registrar: issue the device's certificate and enrol its key on chain.

    Example: [bold]scanseal device approve devices/ct1.csr --seals-everything-since now[/bold]
    """
    from ledger.wiring import devices

    since = None if seals_everything_since is None else _time(seals_everything_since)
    enrolled = devices.approve_device(site, request, devices.roles_named(roles), since)
    if json:
        write_json(enrolled)
        return
    OUT.print(
        f"enrolled {plain(str(enrolled['device']))} with {enrolled['roles']}; certificate {plain(str(enrolled['certificate']))}"
    )
    if "acquire" in str(enrolled["roles"]):
        OUT.print(f"next: [bold]scanseal seal PATHS --device {plain(str(enrolled['name']))}[/bold]")


@device_app.command("adopt")
def device_adopt(
    certificate: Annotated[Path, typer.Argument(help="The certificate (.pem) that was made of a request of this site.")],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Take over the certificate that a log node's operator made of a request of this site (`device approve` there).

    Example: [bold]scanseal device adopt ct1.pem[/bold]
    """
    from ledger.wiring import remote

    row = remote.adopt_certificate(site, certificate)
    if json:
        write_json(row)
    else:
        OUT.print(f"{plain(row['name'])} is certified as {plain(row['device'])}")


@device_app.command("list")
def device_list(site: SiteOption = None, json: JsonOption = False) -> None:
    """List the keys in the registry on chain, and which of them are this site's.

    Example: [bold]scanseal device list[/bold]
    """
    from ledger.wiring import devices

    rows = devices.list_devices(site)
    if json:
        write_json({"keys": [row | {name: iso(row[name] or None) for name in _TIMES} for row in rows]})
        return
    for row in rows:
        OUT.print(f"[bold]{plain(row['name'] or 'not of this site')}[/bold]  {plain(row['device'])}", highlight=False)
        OUT.print(f"    key {row['key']}, may {row['roles']}")
        dates = [f"{name.replace('_', ' ').removesuffix(' at')} {moment(row[name])}" for name in _TIMES if row[name]]
        OUT.print(f"    {', '.join(dates)}")
    if not rows:
        OUT.print("no keys are enrolled: [bold]scanseal device request[/bold], then [bold]scanseal device approve[/bold]")


_TIMES = ("enrolled_at", "retired_at", "compromised_since", "seals_everything_since")


@device_app.command("rotate")
def device_rotate(
    name: Annotated[str, typer.Argument(help="The device whose key is replaced.")],
    new_name: Annotated[str, typer.Argument(help="A name for the new key, such as ct1-2027.")],
    curve: Annotated[Curve, typer.Option(help="secp256k1 or p256.")] = "secp256k1",
    pkcs11: Pkcs11Option = None,
    token: TokenOption = None,
    key_label: KeyLabelOption = None,
    key_id: KeyIdOption = None,
    pin_file: PinFileOption = None,
    pin_env: PinEnvOption = None,
    existing_key: ExistingKeyOption = False,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Replace a device's key: the old one is retired, the new one enrolled with the same roles, in one transaction.

    A key on a token is followed by one on the same token, unless another is named.

    Example: [bold]scanseal device rotate ct1 ct1-2027[/bold]
    """
    from ledger.wiring import devices

    place = on_token(pkcs11, token, key_label, key_id, pin_file, pin_env, existing_key)
    _changed(devices.rotate_device(site, name, new_name, curve, place), json)


@device_app.command("retire")
def device_retire(
    name: Annotated[str, typer.Argument(help="The device's name here, or its key.")],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Take a key out of service in good standing: its seals stay valid, it makes no new ones.

    Example: [bold]scanseal device retire ct1[/bold]
    """
    from ledger.wiring import devices

    _changed(devices.retire_device(site, name), json)


@device_app.command("revoke")
def device_revoke(
    name: Annotated[str, typer.Argument(help="The device's name here, or its key.")],
    compromised_since: Annotated[
        str, typer.Option(help="Since when the key may be in wrong hands: YYYY-MM-DD, YYYY-MM-DDTHH:MM:SSZ, or 'now'.")
    ],
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Declare a key compromised: what came on chain before the date stays AUTHENTIC, what came after is REVOKED.

    Example: [bold]scanseal device revoke ct1 --compromised-since 2026-05-01[/bold]
    """
    from ledger.wiring import devices

    since = None if compromised_since == "now" else _time(compromised_since)
    _changed(devices.revoke_device(site, name, since), json)


def _changed(change: dict[str, object], json: bool) -> None:
    if json:
        write_json(change)
    else:
        OUT.print(f"{change['what']} {plain(str(change['name']))} in block {change['block']}")


@trust_app.command("init")
def trust_init(
    output: Annotated[Path, typer.Argument(help="Where the trust file goes.")] = Path("trust.toml"),
    bundle: Annotated[Path | None, typer.Option("--bundle", help="A bundle of the ledger that is to be trusted.")] = None,
    authority: Annotated[
        list[Path] | None, typer.Option("--authority", help="A site's ca.pem, got from the site itself.")
    ] = None,
    rpc: Annotated[list[str] | None, typer.Option(help="JSON-RPC URL. Repeatable: all must agree.")] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Make a trust file: from a site of this machine, or from a bundle, a site's ca.pem and a node. Read it before you use it.

    Example: [bold]scanseal trust init --bundle study.seal.json --authority ca.pem --rpc http://node:8545[/bold]
    """
    from ledger.wiring import trusting

    _trusted(trusting.init_trust(output, bundle, authority or [], tuple(rpc or ()), site), json)


@trust_app.command("update")
def trust_update(
    file: Annotated[Path | None, typer.Argument(help="The trust file (default: the site's).")] = None,
    bundle: Annotated[list[Path] | None, typer.Option("--bundle", help="Bundles whose blocks are to be trusted.")] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Ask all RPC nodes for final block hashes, key revocations and devices, and write them into the trust file.

    Example: [bold]scanseal trust update trust.toml --bundle study.seal.json[/bold]
    """
    from ledger.wiring import trusting

    _trusted(trusting.update_trust(file, bundle or [], site), json)


@trust_app.command("show")
def trust_show(
    file: Annotated[Path | None, typer.Argument(help="The trust file (default: the site's).")] = None,
    site: SiteOption = None,
    json: JsonOption = False,
) -> None:
    """Show what a trust file makes a verifier believe.

    Example: [bold]scanseal trust show trust.toml[/bold]
    """
    from ledger.wiring import trusting

    _trusted(trusting.show_trust(file, site), json)


def _trusted(shown: dict[str, object], json: bool) -> None:
    if json:
        write_json(shown)
        return
    for label, value in shown.items():
        OUT.print(f"[bold]{label.replace('_', ' ')}[/bold]  {plain(str(value))}")


def demo(
    folder: Annotated[Path, typer.Option(help="The demo's folder; it is kept, and made anew by the next demo.")] = Path(
        "demo-site"
    ),
    images: Annotated[Path | None, typer.Option(help="More real images: a folder with a cxr or dicom folder in it.")] = None,
) -> None:
    """Watch it work: a local chain, two devices, real DICOM images sealed, anchored, and verified in seven ways.

    Example: [bold]scanseal demo[/bold]
    """
    from ledger.cli.demo import Demo

    with ExitStack() as stack:
        Demo(folder, images, stack).run()


def _time(text: str) -> int:
    """Seconds since 1970 of a day or a moment (UTC unless it says otherwise). Raises FixInput."""
    if text == "now":
        return int(datetime.now(UTC).timestamp())
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise FixInput(f"{text!r} is no date: use YYYY-MM-DD, YYYY-MM-DDTHH:MM:SSZ or 'now'") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
