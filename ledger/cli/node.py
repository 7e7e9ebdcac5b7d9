"""`serve` and `node`: a log node, which takes the records of other sites."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ledger.cli.output import ERR, OUT, iso, moment, plain, write_json
from ledger.cli.verifying import JsonOption, SiteOption
from ledger.core.errors import FixInput
from ledger.wiring import assembly_node

node_app = typer.Typer(help="A log node: who may hand records in, and with which keys.", no_args_is_help=True)
client_app = typer.Typer(help="Sites that may hand records in: add, list, remove.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Log node")(serve)
    node_app.add_typer(client_app, name="client")
    app.add_typer(node_app, name="node", rich_help_panel="Log node")


def serve(
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:8443",
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="The server's certificate with its chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Its key (PEM, not encrypted).")] = None,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="Peers must show a certificate that this authority issued (PEM).")
    ] = None,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Without TLS on an address that others reach: a proxy does the TLS.")
    ] = False,
    site: SiteOption = None,
) -> None:
    """Run a log node on this site: take signed records of other sites, put them into the log, anchor it, answer for it.

    Ends on SIGTERM after the requests that are under way. Its log is on standard error, /healthz and /metrics tell monitors.

    Example: [bold]scanseal serve --listen 0.0.0.0:8443 --tls-cert node.pem --tls-key node.key[/bold]
    """
    if (tls_cert is None) != (tls_key is None):
        raise FixInput("--tls-cert and --tls-key go together")
    if client_ca is not None and tls_cert is None:
        raise FixInput("--client-ca needs --tls-cert and --tls-key")
    tls = None if tls_cert is None or tls_key is None else assembly_node.Tls(tls_cert, tls_key, client_ca)
    assembly_node.serve(site, listen, tls, insecure_http=insecure_http)


@client_app.command("add")
def client_add(
    name: Annotated[str, typer.Argument(help="What to call the site here.")], site: SiteOption = None, json: JsonOption = False
) -> None:
    """Make a token for a site. It is shown this once, and only its hash is kept.

    Example: [bold]scanseal node client add "Site B" > site-b.token[/bold]
    """
    token = assembly_node.add_client(site, name)
    if json:
        write_json({"name": name, "token": token})
        return
    sys.stdout.write(token + "\n")
    ERR.print(f"the token of {plain(name)}, on standard output: hand it over where nobody else sees it")


@client_app.command("list")
def client_list(site: SiteOption = None, json: JsonOption = False) -> None:
    """List the sites that have a token.

    Example: [bold]scanseal node client list[/bold]
    """
    rows = assembly_node.list_clients(site)
    if json:
        write_json({"clients": [row | {"added": iso(row["added"])} for row in rows]})
        return
    for row in rows:
        OUT.print(f"{plain(row['name'])}  since {moment(row['added'])}", highlight=False)
    if not rows:
        OUT.print("no site has a token: [bold]scanseal node client add NAME[/bold]")


@client_app.command("remove")
def client_remove(name: Annotated[str, typer.Argument(help="The site, as `list` shows it.")], site: SiteOption = None) -> None:
    """Take a site's token away: from now on it is refused. What it handed in stays.

    Example: [bold]scanseal node client remove "Site B"[/bold]
    """
    assembly_node.remove_client(site, name)
    OUT.print(f"{plain(name)} hands nothing in any more")


@node_app.command("keys")
def keys(site: SiteOption = None, json: JsonOption = False) -> None:
    """List the keys whose records were handed in, and which of them are held, because two agents use them.

    Example: [bold]scanseal node keys[/bold]
    """
    rows = assembly_node.list_keys(site)
    if json:
        write_json({"keys": rows})
        return
    for row in rows:
        OUT.print(f"{row['key']}  {row['records']} records  {plain(row['device'])}", highlight=False)
        if row["held"]:
            OUT.print(f"    [bold red]held: two histories, which differ at counter {row['counter']}[/bold red]")
    if not rows:
        OUT.print("no records were handed in yet")


@node_app.command("release")
def release(
    key: Annotated[str, typer.Argument(help="0x and 64 hex digits, as `scanseal node keys` shows it.")], site: SiteOption = None
) -> None:
    """Take records of a key again that two agents used, once only one of them has it.

    What is in the log stays; records that contradict it are refused as before, and hold the key again.

    Example: [bold]scanseal node release 0x5f...[/bold]
    """
    assembly_node.release(site, key)
    OUT.print("records of this key are taken again")
