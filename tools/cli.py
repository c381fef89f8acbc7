"""The `satchel` command: its sub-commands, their options and their help; each imports its module when it runs.

Exit codes of every command: 0 fine, 1 findings, 2 could not run (with what to do next).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tools.terminal import COULD_NOT_RUN, DEFAULT_DATA, run, say, tell_failure

app = typer.Typer(
    name="satchel",
    help="An open exchange whose single source of truth is a signed double-entry ledger. "
    "Exit codes: 0 fine, 1 findings, 2 could not run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Help texts are plain: in markup `[keys]` would be a style, and vanish.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
por = typer.Typer(
    help="Proof of reserves: run an epoch, prove a subaccount, verify a proof.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(por, name="por")
conformance = typer.Typer(
    help="Satchel against vectors that others wrote.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(conformance, name="conformance")
pools = typer.Typer(
    help="Liquidity pools of a running exchange: list, quote, swap, provide, leveraged longs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(pools, name="pools")

Data = Annotated[Path, typer.Option("--data", help="The node's folder.", show_default=str(DEFAULT_DATA))]
Database = Annotated[str | None, typer.Option("--database", help="Database URL; else the SQLite file under --data.")]
GenesisKey = Annotated[
    str | None, typer.Option("--public-key", help="The exchange's key at genesis that you trust, base64.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Url = Annotated[str, typer.Option("--url", help="Where the exchange listens.")]
Key = Annotated[Path, typer.Option("--key", help="File of an API key, of `satchel keygen --out`.")]
Pool = Annotated[str, typer.Argument(help="The pool's external asset, as USDC.")]
HERE = "http://127.0.0.1:8080"


def main() -> None:
    """The console script."""
    if not __debug__:
        say("satchel: refuses to run under python -O: its assertions guard money")
        sys.exit(COULD_NOT_RUN)
    if "--json" not in sys.argv:
        app()
        return
    try:
        sys.exit(app(standalone_mode=False))
    except Exception as problem:
        # Known by what it can do: typer carries the class of its usage errors where nobody should import it from.
        words = getattr(problem, "format_message", None)
        if words is None:
            raise
        tell_failure("USAGE", words(), "satchel --help, or satchel COMMAND --help", True)
        sys.exit(COULD_NOT_RUN)


def _end(body: Callable[[], int], as_json: bool) -> None:
    raise typer.Exit(run(body, as_json))


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from ledger import compiled

        typer.echo(f"satchel {version('satchel-exchange')}, core: {compiled.build()}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Version; whether the core is compiled."),
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def serve(
    devnet: Annotated[bool, typer.Option("--devnet", help="A sandbox: simulated chain, faucet, own clock.")] = False,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    genesis: Annotated[Path | None, typer.Option("--genesis", help="Genesis file of a new exchange.")] = None,
    evm: Annotated[str | None, typer.Option("--evm", help="JSON-RPC URL of the EVM chain.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Log lines as JSON.")] = False,
) -> None:
    """Run the exchange; prints `listening on URL` when it answers."""
    from tools import serving

    _end(lambda: serving.serve(devnet, data, database, host, port, genesis, evm, json), json)


@app.command()
def demo(
    data: Data = DEFAULT_DATA,
    database: Database = None,
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8080,
    seed: Annotated[int, typer.Option("--seed", help="Seed of prices and clients.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Where it listens, as one JSON line.")] = False,
) -> None:
    """A devnet with a living book: prices, market makers and takers (this is `make run`)."""
    from tools import demo as demonstration

    _end(lambda: demonstration.run(data, database, port, seed, json), json)


@app.command()
def keygen(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the private key to this new file (mode 600).")
    ] = None,
    exchange: Annotated[
        bool, typer.Option("--exchange", help="A key for the exchange itself, under --data, to rotate to.")
    ] = False,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Make an Ed25519 API key pair (base64, as the wire API wants it)."""
    from tools import keys

    _end(lambda: keys.exchange_key(data, json) if exchange else keys.keygen(out, json), json)


@app.command()
def sign(
    instruction: Annotated[str, typer.Argument(help="orderExecute, withdraw, balanceQuery …, or - with --text.")],
    fields: Annotated[list[str] | None, typer.Argument(help="Body or query fields as name=value.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="File of `satchel keygen --out`.")] = None,
    secret: Annotated[str | None, typer.Option("--secret", help="The private key itself, base64.")] = None,
    body: Annotated[str | None, typer.Option("--body", help="JSON body instead of fields; a list is a batch.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Sign exactly this text instead.")] = None,
    timestamp: Annotated[int | None, typer.Option("--timestamp", help="Milliseconds; now when left out.")] = None,
    window: Annotated[int, typer.Option("--window", help="Milliseconds the request is good for.")] = 5000,
    url: Annotated[str, typer.Option("--url", help="Where the exchange listens.")] = "http://127.0.0.1:8080",
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Sign a request: prints the signed text, the headers and a curl line."""
    from tools import keys

    _end(lambda: keys.sign(instruction, fields or [], body, key, secret, text, timestamp, window, url, json), json)


@app.command()
def replay(
    data: Data = DEFAULT_DATA,
    database: Database = None,
    from_snapshot: Annotated[
        int | None,
        typer.Option("--from-snapshot", help="Start at the newest snapshot up to this block, not at genesis."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Keep progress in this file; go on from it when it exists.")
    ] = None,
    to: Annotated[int | None, typer.Option("--to", help="Stop after this block.")] = None,
    public_key: GenesisKey = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Make the history's rows again too; leave it out for speed.")
    ] = True,
    json: Json = False,
) -> None:
    """Run every command of the log again and compare log, journal, snapshots, epochs with leaves, and history."""
    from tools import replaying

    _end(lambda: replaying.replay(data, database, from_snapshot, resume, to, public_key, json, history), json)


@app.command("verify-journal")
def verify_journal(
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A kept checkpoint to hold the log against.")
    ] = None,
    public_key: GenesisKey = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Check the log's tables: hashes, chain, roots, signatures, balances, schema, and the tail against checkpoints.

    Of the published epochs it checks the rows, of the snapshots the signatures. Whether journal, snapshots, epochs with
    their leaves and history follow from the commands, `satchel replay` tells.
    """
    from tools import verifying

    _end(lambda: verifying.verify_journal(data, database, checkpoint, public_key, json), json)


@app.command()
def audit(
    keys: Annotated[
        Path | None, typer.Option("--keys", help="The users' public keys: JSON {userId: [base64 keys]}.")
    ] = None,
    public_key: GenesisKey = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Prove from the log alone that users asked for what was done in their name, and that rules did the rest."""
    from tools import audit as auditing

    _end(lambda: auditing.audit(data, database, keys, public_key, json), json)


@app.command()
def receipt(
    seq: Annotated[int | None, typer.Argument(help="Journal transaction; leave out with --verify.")] = None,
    subaccount: Annotated[
        int | None, typer.Option("--subaccount", help="Prove this subaccount's rows of its columns too.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the receipt to this file.")] = None,
    verify: Annotated[Path | None, typer.Option("--verify", help="Verify this receipt, offline.")] = None,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="The exchange's key that you trust, base64.")
    ] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Write the offline receipt of a journal transaction, or verify one."""
    from tools import reports

    _end(lambda: reports.receipt(data, database, seq, subaccount, out, verify, public_key, json), json)


@app.command()
def statement(
    subaccount: Annotated[int, typer.Argument(help="Subaccount id.")],
    since: Annotated[str | None, typer.Option("--from", help="Block height or UTC time; first line shown.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Block height or UTC time; exclusive for a time.")] = None,
    as_of: Annotated[int | None, typer.Option("--as-of", help="As it stood after this block.")] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Everything that moved a subaccount's funds, with running balances."""
    from tools import reports

    _end(lambda: reports.statement(data, database, subaccount, since, until, as_of, json), json)


@app.command()
def liquidations(
    subaccount: Annotated[int, typer.Argument(help="Subaccount id.")],
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """An account's liquidations step by step, every figure computed again from the log."""
    from tools import recomputing

    _end(lambda: recomputing.liquidations(data, database, subaccount, json), json)


@app.command()
def parameters(
    symbol: Annotated[str, typer.Argument(help="A market, an asset or a pool, as SOL_USDC_PERP, SOL, SOL.pool.")],
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """What a market, an asset or a liquidity pool is set to, as an operator's command takes it."""
    from tools import parameters as parameters_

    _end(lambda: parameters_.parameters(data, database, symbol), json)


@app.command("trial-balance")
def trial_balance(
    as_of: Annotated[int | None, typer.Option("--as-of", help="As it stood after this block.")] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Debits and credits of every account; per asset they must be equal."""
    from tools import reports

    _end(lambda: reports.trial_balance(data, database, as_of, json), json)


@app.command()
def reconcile(
    evm: Annotated[
        list[str] | None, typer.Option("--evm", help="CHAIN=URL of a node to ask, for chains that are not simulated.")
    ] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Hold the ledger's custody accounts against what is on chain, wallet by wallet."""
    from tools import reconciling

    _end(lambda: reconciling.reconcile(data, database, evm or [], json), json)


@app.command()
def alarms(
    clear: Annotated[
        list[int] | None, typer.Option("--clear", help="An alarm that was dealt with, by id. Repeatable.")
    ] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """What the chains' loops want a person to look at; 1 while there is something."""
    from tools import alarms as alarming

    _end(lambda: alarming.show(data, database, clear or [], json), json)


@app.command()
def liquidity(
    key: Annotated[Path, typer.Option("--key", help="File of an operator's key, of `satchel keygen --out`.")],
    url: Annotated[str, typer.Option("--url", help="Where the exchange listens.")] = "http://127.0.0.1:8080",
    low: Annotated[
        str, typer.Option("--low", help="A chain runs low below this part of what users have of the asset.")
    ] = "0.1",
    json: Json = False,
) -> None:
    """What each chain can pay out of each asset; 1 while one runs low."""
    from tools import liquidity as liquid

    _end(lambda: liquid.show(url, key, low, json), json)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="File to write, or to read with --verify.")],
    verify: Annotated[bool, typer.Option("--verify", help="Verify this export; needs no database.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A kept checkpoint to hold the export against.")
    ] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Write the whole log to one file that verifies without SQL, or verify one."""
    from tools import exporting

    _end(lambda: exporting.export(data, database, file, verify, checkpoint, json), json)


@app.command()
def feed(
    key: Annotated[Path, typer.Option("--key", help="File of an operator's key, of `satchel keygen --out`.")],
    config: Annotated[Path, typer.Option("--config", help="Which sources are asked for which assets (TOML).")],
    url: Annotated[str, typer.Option("--url", help="Where the exchange listens.")] = "http://127.0.0.1:8080",
    rounds: Annotated[int | None, typer.Option("--rounds", help="Stop after so many rounds.", min=1)] = None,
    json: Annotated[bool, typer.Option("--json", help="Each quote as a line of JSON.")] = False,
) -> None:
    """Feed index prices from sources outside: ccxt tickers, recorded tapes. Ctrl-C stops it."""
    from tools import feed as feeding

    _end(lambda: feeding.run(url, key, config, rounds, json), json)


@app.command()
def bench(
    only: Annotated[list[str] | None, typer.Option("--only", help="Measure only this row; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the size: a smoke test, not a figure.")] = False,
    data: Data = DEFAULT_DATA,
    database: Annotated[
        str | None, typer.Option("--database", help="Also measure this PostgreSQL instead of an own one.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure on this machine and print beside the peers' figures."""
    from tools import benchmarks

    _end(lambda: benchmarks.bench(only or [], quick, database, json), json)


@por.command("run")
def por_run(
    url: Annotated[str | None, typer.Option("--url", help="A running devnet; else it must be stopped.")] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Close an epoch now and print its header: on a stopped node's data, or with --url on a running devnet."""
    from tools import reserves

    _end(lambda: reserves.run_epoch(data, database, url, json), json)


@por.command("prove")
def por_prove(
    subaccount: Annotated[int, typer.Argument(help="Subaccount id.")],
    epoch: Annotated[int | None, typer.Option("--epoch", help="The newest when left out.")] = None,
    known: Annotated[
        list[int] | None,
        typer.Option("--known", help="Rows of the log that you saw before; the proof connects itself. Repeatable."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the proof to this file.")] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Write the proof that a subaccount's balances are in an epoch's tree."""
    from tools import reserves

    _end(lambda: reserves.prove(data, database, subaccount, epoch, known or [], out, json), json)


@por.command("verify")
def por_verify(
    proof: Annotated[Path, typer.Argument(help="File of `satchel por prove`, or of the API.")],
    subaccount: Annotated[int | None, typer.Option("--subaccount", help="The proof must be this one's.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="The exchange's public key that you trust.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint of the epochs' log that you got elsewhere.")
    ] = None,
    data: Data = DEFAULT_DATA,
    database: Database = None,
    json: Json = False,
) -> None:
    """Verify a proof as its owner would: with por/verifier.py alone."""
    from tools import reserves

    _end(lambda: reserves.verify(proof, subaccount, key, checkpoint, data, database, json), json)


@conformance.command("pools")
def conformance_pools(
    folder: Annotated[Path, typer.Argument(help="Folder of vector files; other files in it are ignored.")],
    json: Json = False,
) -> None:
    """Run every row of liquidity-pool vectors through our formulas and our engine; 1 when one differs."""
    from tools.conformance import pools

    _end(lambda: pools.run(folder, json), json)


@pools.command("list")
def pools_list(url: Url = HERE, json: Json = False) -> None:
    """Every pool: prices, both sides, what positions owe, health, interest rate per epoch."""
    from tools import pools as liquid

    _end(lambda: liquid.show(url, json), json)


@pools.command("quote")
def pools_quote(
    paid: Annotated[str, typer.Argument(help="What is paid, or the collateral.")],
    wanted: Annotated[str, typer.Argument(help="What is received, or kept in custody.")],
    quantity: Annotated[str, typer.Argument(help="How much is paid.")],
    leverage: Annotated[str | None, typer.Option("--leverage", help="Quote a leveraged long instead.")] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """What a swap would bring now, pool by pool, with fee and price impact; or what a leveraged long would be."""
    from tools import pools as liquid

    _end(lambda: liquid.quote(url, paid, wanted, quantity, leverage, json), json)


@pools.command("swap")
def pools_swap(
    paid: Annotated[str, typer.Argument(help="What is paid.")],
    wanted: Annotated[str, typer.Argument(help="What is received.")],
    quantity: Annotated[str, typer.Argument(help="How much is paid.")],
    key: Key,
    least: Annotated[str | None, typer.Option("--min-received", help="Refused if it would bring less.")] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """Swap one asset for another, through one pool or two."""
    from tools import pools as liquid

    fields = {"fromSymbol": paid, "toSymbol": wanted, "quantity": quantity, "minReceived": least}
    _end(lambda: liquid.act(url, key, "poolSwapExecute", fields, json), json)


@pools.command("add")
def pools_add(
    symbol: Pool,
    key: Key,
    native: Annotated[str | None, typer.Option("--native", help="How much of the native asset.")] = None,
    external: Annotated[str | None, typer.Option("--external", help="How much of the other.")] = None,
    least: Annotated[str | None, typer.Option("--min-units", help="Refused if it would bring fewer units.")] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """Add liquidity: both sides, or one, for units of the pool."""
    from tools import pools as liquid

    fields = {"symbol": symbol, "nativeQuantity": native, "externalQuantity": external, "minUnits": least}
    _end(lambda: liquid.act(url, key, "poolLiquidityAdd", fields, json), json)


@pools.command("remove")
def pools_remove(
    symbol: Pool,
    key: Key,
    units: Annotated[str | None, typer.Option("--units", help="How many units.")] = None,
    basis_points: Annotated[
        int | None, typer.Option("--basis-points", help="Of all units held, instead.", min=0, max=10_000)
    ] = None,
    least_native: Annotated[str | None, typer.Option("--min-native", help="Refused if it would bring less.")] = None,
    least_external: Annotated[
        str | None, typer.Option("--min-external", help="Refused if it would bring less.")
    ] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """Take liquidity out, by units or by basis points of them."""
    from tools import pools as liquid

    limits = {"minNative": least_native, "minExternal": least_external}
    fields = {"symbol": symbol, "units": units, "basisPoints": basis_points, **limits}
    _end(lambda: liquid.act(url, key, "poolLiquidityRemove", fields, json), json)


@pools.command("open")
def pools_open(
    collateral: Annotated[str, typer.Argument(help="The collateral's asset.")],
    custody: Annotated[str, typer.Argument(help="The asset to be long of.")],
    quantity: Annotated[str, typer.Argument(help="How much collateral.")],
    leverage: Annotated[str, typer.Argument(help="As 2.5.")],
    key: Key,
    least: Annotated[str | None, typer.Option("--min-custody", help="Refused if it would bring less.")] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """Open a leveraged long, lent by a pool."""
    from tools import pools as liquid

    fields = {"collateralSymbol": collateral, "custodySymbol": custody, "quantity": quantity}
    fields |= {"leverage": leverage, **({} if least is None else {"minCustody": least})}
    _end(lambda: liquid.act(url, key, "poolPositionOpen", fields, json), json)


@pools.command("close")
def pools_close(
    position: Annotated[str, typer.Argument(help="Its id, of `satchel pools positions`.")],
    key: Key,
    least: Annotated[str | None, typer.Option("--min-received", help="Refused if it would return less.")] = None,
    url: Url = HERE,
    json: Json = False,
) -> None:
    """Close a leveraged long: interest and debt are paid, the rest is returned."""
    from tools import pools as liquid

    fields = {"positionId": position, "minReceived": least}
    _end(lambda: liquid.act(url, key, "poolPositionClose", fields, json), json)


@pools.command("positions")
def pools_positions(key: Key, url: Url = HERE, json: Json = False) -> None:
    """The subaccount's leveraged longs: health, liquidation ratio, what a close would bring."""
    from tools import pools as liquid

    _end(lambda: liquid.positions(url, key, json), json)


@pools.command("liquidity")
def pools_liquidity(key: Key, url: Url = HERE, json: Json = False) -> None:
    """What the subaccount provides, what it is worth now, and what it earned."""
    from tools import pools as liquid

    _end(lambda: liquid.liquidity(url, key, json), json)


if __name__ == "__main__":
    main()
