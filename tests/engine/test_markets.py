"""Configuration by command and genesis files: the same rules, and what is wrong is named.   [A-3, M-3, D-1]"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine import genesis
from engine.commands import ConfigureAsset, ConfigureFees, ConfigureMarket, ConfigureToken, SetPrices
from engine.genesis import GenesisError
from engine.parameters import RATE_SCALE, BandParameters, BookState, IndexParameters, MarketType, PriceSource
from engine.rejections import RejectReason
from ledger.journal import JournalKind
from tests.engine.exchange import Exchange

PACKAGE = Path(genesis.__file__).parent / "genesis"
NORTH = PriceSource("north", 1, 10_000)
SOURCE = '[[asset.index.source]]\nname = "north"\n'


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


def refusal(exchange: Exchange, command: object) -> tuple[RejectReason, object]:
    rejection = exchange.attempt(command).rejection  # type: ignore[arg-type]
    assert rejection is not None, "accepted"
    return rejection.reason, rejection.facts.get("field")


def test_listing_an_asset_is_on_record_once(exchange: Exchange) -> None:
    entries = [entry for outcome in exchange.outcomes for entry in outcome.journal]
    listed = [entry.memo for entry in entries if entry.kind == JournalKind.ASSET_LISTED]

    assert listed == [(each.asset_id, each.symbol, each.decimals) for each in exchange.state.assets.values()]

    outcome = exchange.do(ConfigureAsset(exchange.state.assets[1]))

    assert outcome.journal == []


@pytest.mark.parametrize("field", ["symbol", "decimals"])
def test_an_assets_identity_never_changes(exchange: Exchange, field: str) -> None:
    changed = {"symbol": "USDX", "decimals": 7}[field]
    asset = msgspec.structs.replace(exchange.state.assets[1], **{field: changed})

    assert refusal(exchange, ConfigureAsset(asset)) == (RejectReason.IMMUTABLE_PARAMETER, field)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("tick_price", 1, "tick"),
        ("lot_atoms", 1, "step"),
        ("base_asset_id", 3, "base"),
        ("type", MarketType.PERP, "type"),
    ],
)
def test_tick_and_lot_and_assets_of_a_market_never_change(
    exchange: Exchange, field: str, value: object, named: str
) -> None:
    market = msgspec.structs.replace(exchange.state.markets[1].parameters, **{field: value})

    assert refusal(exchange, ConfigureMarket(market)) == (RejectReason.IMMUTABLE_PARAMETER, named)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"imf_base": 10_000_000, "mmf_base": 9_000_000}, "imf_base"),
        ({"imf_factor": 10, "mmf_factor": 9}, "imf_factor"),
        ({"weight": RATE_SCALE + 1}, "weight"),
        ({"step_atoms": 0}, "step"),
        ({"collateral": False}, "weight"),
        ({"index": IndexParameters(())}, "index.source"),
        ({"index": IndexParameters((NORTH, NORTH))}, "index.source.1.name"),
        ({"index": IndexParameters((PriceSource("a b", 1, 1),))}, "index.source.0.name"),
        ({"index": IndexParameters((PriceSource("north", 0, 1),))}, "index.source.0.weight"),
        ({"index": IndexParameters((NORTH, PriceSource("south", 1, 0)))}, "index.source.1.stale_ms"),
        ({"index": IndexParameters((NORTH,), 2)}, "index.minimum_sources"),
        ({"index": IndexParameters((NORTH,), 0)}, "index.minimum_sources"),
        ({"index": IndexParameters((NORTH,), 1, RATE_SCALE)}, "index.clamp"),
    ],
)
def test_an_asset_must_make_sense(exchange: Exchange, changes: dict, named: str) -> None:
    asset = msgspec.structs.replace(exchange.state.assets[1], **changes)

    assert refusal(exchange, ConfigureAsset(asset)) == (RejectReason.INVALID_PARAMETERS, named)


def test_a_mark_bound_is_half_of_the_maintenance_fraction_at_most(exchange: Exchange) -> None:
    """P-2: a mark that could leave by more would liquidate by itself; above 10 % of maintenance there is room."""
    market = exchange.state.markets[exchange.market("SOL_USDC")].parameters
    sol = exchange.state.assets[exchange.asset("SOL")]
    most = sol.mmf_base // 2
    exchange.do(ConfigureMarket(msgspec.structs.replace(market, mark_bound=most)))

    for bound in (most + 1, 0, -1):
        wrong = msgspec.structs.replace(market, mark_bound=bound)
        assert refusal(exchange, ConfigureMarket(wrong)) == (RejectReason.INVALID_PARAMETERS, "mark_bound")
    tight = msgspec.structs.replace(sol, mmf_base=2 * most - 2)
    assert refusal(exchange, ConfigureAsset(tight)) == (RejectReason.INVALID_PARAMETERS, "mmf_base")
    careful = msgspec.structs.replace(sol, mmf_base=RATE_SCALE // 10 + 1, imf_base=RATE_SCALE // 5)
    exchange.do(ConfigureAsset(careful))
    exchange.do(ConfigureMarket(msgspec.structs.replace(market, mark_bound=most + 1)))


def test_a_tick_that_is_no_whole_atom_is_refused(exchange: Exchange) -> None:
    market = exchange.state.markets[1].parameters
    strange = msgspec.structs.replace(
        market, market_id=9, symbol="SOL_USDT", quote_asset_id=2, tick_price=market.tick_price // 10**3
    )

    assert refusal(exchange, ConfigureMarket(strange)) == (RejectReason.INVALID_PARAMETERS, "tick")


def test_a_market_between_listed_assets_can_be_added_and_named_only_after_them(exchange: Exchange) -> None:
    market = exchange.state.markets[1].parameters
    added = msgspec.structs.replace(market, market_id=9, symbol="SOL_USDT", quote_asset_id=2)
    exchange.do(ConfigureMarket(added))

    assert exchange.state.markets[9].parameters == added
    again = msgspec.structs.replace(added, market_id=10)
    assert refusal(exchange, ConfigureMarket(again)) == (RejectReason.INVALID_PARAMETERS, "symbol")
    unknown = msgspec.structs.replace(market, market_id=11, base_asset_id=77)
    assert refusal(exchange, ConfigureMarket(unknown))[0] in (
        RejectReason.UNKNOWN_ASSET,
        RejectReason.INVALID_PARAMETERS,
    )


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"premium_divisor": 0}, "premium_divisor"),
        ({"interest_rate": RATE_SCALE + 1}, "interest_rate"),
        ({"funding_clamp": -1}, "funding_clamp"),
        ({"funding_interval_ms": 59_999}, "funding_interval_ms"),
        ({"funding_lower_bps": 1}, "funding_lower_bps"),
        ({"funding_upper_bps": 10_001}, "funding_upper_bps"),
        ({"position_limit_lots": -1}, "position_limit"),
        ({"mark_bound": 12_500_001}, "mark_bound"),
        ({"liquidation_bands": {"impact_max": 1_099_999_999}}, "liquidation_bands.impact_max"),
        ({"liquidation_bands": {"mean_mark_min": 500_000_001}}, "liquidation_bands.mean_mark_min"),
        ({"liquidation_bands": {"premium_tolerance": 99_999_999}}, "liquidation_bands.premium_tolerance"),
    ],
)
def test_a_perpetuals_parameters_are_checked(exchange: Exchange, changed: dict[str, Any], field: str) -> None:
    """P-14, P-20, P-22: a liquidation's bands are never tighter than the market's own."""
    market = exchange.state.markets[exchange.market("SOL_USDC_PERP")].parameters
    assert market.perpetual is not None
    if "liquidation_bands" in changed:
        changed = {"liquidation_bands": msgspec.structs.replace(market.bands, **changed["liquidation_bands"])}
    wrong = msgspec.structs.replace(market, perpetual=msgspec.structs.replace(market.perpetual, **changed))

    assert refusal(exchange, ConfigureMarket(wrong)) == (RejectReason.INVALID_PARAMETERS, f"perpetual.{field}")


def test_only_a_perpetual_has_what_a_perpetual_has(exchange: Exchange) -> None:
    market = exchange.state.markets[exchange.market("SOL_USDC_PERP")].parameters
    bare = msgspec.structs.replace(market, perpetual=None)

    assert refusal(exchange, ConfigureMarket(bare)) == (RejectReason.INVALID_PARAMETERS, "perpetual")


def test_a_tokens_contract_is_set_once(exchange: Exchange) -> None:
    token = exchange.state.tokens[2, exchange.asset("USDC")]
    enabled = msgspec.structs.replace(token, contract="0xA", deposit_enabled=True, withdraw_enabled=True)
    exchange.do(ConfigureToken(enabled))

    other = msgspec.structs.replace(enabled, contract="0xB")
    assert refusal(exchange, ConfigureToken(other)) == (RejectReason.IMMUTABLE_PARAMETER, "contract")
    usdt = msgspec.structs.replace(exchange.state.tokens[2, exchange.asset("USDT")], contract="0xa")
    assert refusal(exchange, ConfigureToken(usdt)) == (RejectReason.INVALID_PARAMETERS, "contract")


def test_a_token_without_contract_cannot_be_enabled(exchange: Exchange) -> None:
    token = msgspec.structs.replace(exchange.state.tokens[2, exchange.asset("USDC")], deposit_enabled=True)

    assert refusal(exchange, ConfigureToken(token)) == (RejectReason.INVALID_PARAMETERS, "contract")


def test_fee_tables_start_at_zero_and_rise(exchange: Exchange) -> None:
    fees = exchange.state.fees
    backwards = msgspec.structs.replace(fees, spot=fees.spot[::-1])

    assert refusal(exchange, ConfigureFees(backwards)) == (RejectReason.INVALID_PARAMETERS, "spot.0.volume")


@pytest.mark.parametrize("price", [0, -1, 2**63])
def test_prices_are_positive_and_fit(exchange: Exchange, price: int) -> None:
    before = dict(exchange.state.prices)

    assert refusal(exchange, SetPrices(((5, 10**12), (1, price))))[0] is RejectReason.INVALID_PRICE
    assert exchange.state.prices == before


# --- genesis files


def test_the_devnet_is_what_the_rule_book_says() -> None:
    devnet = genesis.load("devnet")
    assets = {asset.symbol: asset for asset in devnet.assets}
    markets = {market.symbol: market for market in devnet.markets}

    assert {symbol: asset.decimals for symbol, asset in assets.items()} == {
        "USDC": 6, "USDT": 6, "BTC": 8, "ETH": 9, "SOL": 9, "ROWAN": 9,
    }  # fmt: skip
    assert (assets["SOL"].weight, assets["SOL"].weight_base, assets["SOL"].weight_penalty) == (
        900_000_000, 1_100_000_000, 500_000,
    )  # fmt: skip
    assert assets["ROWAN"].weight == 0 and assets["ROWAN"].lending is None
    assert list(markets) == ["SOL_USDC", "ETH_USDC", "BTC_USDC", "SOL_USDC_PERP", "ETH_USDC_PERP", "BTC_USDC_PERP"]
    ticks = {symbol: (market.tick_price, market.lot_atoms) for symbol, market in markets.items()}
    assert ticks["SOL_USDC"] == ticks["SOL_USDC_PERP"] == (10**10, 10**7)
    assert ticks["ETH_USDC"] == (10**10, 10**6)
    assert ticks["BTC_USDC"] == (10**11, 10**4)
    assert all(market.state is BookState.OPEN for market in devnet.markets)
    perpetual = markets["BTC_USDC_PERP"].perpetual
    assert perpetual is not None
    assert (perpetual.max_leverage, perpetual.imf_base, perpetual.mmf_base) == (20 * RATE_SCALE, 50_000_000, 25_000_000)
    assert {(token.chain_id, token.asset_id) for token in devnet.tokens if token.chain_id == 1} == {
        (1, asset.asset_id) for asset in devnet.assets
    }
    assert [(chain.chain_id, chain.name) for chain in devnet.chains] == [(1, "Solana"), (2, "Ethereum")]


def test_both_packaged_files_have_the_same_keys() -> None:
    def keys(name: str) -> set[str]:
        lines = (PACKAGE / f"{name}.toml").read_text().splitlines()
        return {line.split(" = ")[0] for line in lines if " = " in line and not line.startswith("#")}

    pools = {"external", "min_native"}
    assert keys("minimal") | {"deposit_enabled", "withdraw_enabled"} | pools == keys("devnet")


@pytest.mark.parametrize(
    ("written", "instead", "said"),
    [
        ("tick =", "tikc =", "market[0].tick: missing; is 'tikc' a misspelling of it?"),
        ('exchange = "', 'colour = "red"\nexchange = "', "colour: unknown key"),
        ('base = "SOL"', 'base = "SLO"', "market[0].base: no asset 'SLO'; did you mean 'SOL'?"),
        ('imf_base = "0.02"', "imf_base = 0.02", "asset[0].imf_base: expected a decimal number in quotes"),
        ('imf_base = "0.02"', 'imf_base = "0.01"', "asset[0].imf_base: must be at least 1.25 × mmf_base"),
        ('imf_base = "0.02"', 'imf_base = "0,02"', "asset[0].imf_base: not a decimal number"),
        ('volume = "100"', 'volume = "0"', "fees.spot[1].volume: must be above the tier before"),
        ("[limits]", "[limit]", "limits: missing; is 'limit' a misspelling of it?"),
        ("id = 2", "id = 1", "asset[1].id: 1 is another asset's id"),
        ("interval_ms = 3600000", "interval_ms = 1", "market[2].perpetual.funding_interval_ms: 1 (in its smallest"),
        ("funding_lower_bps", "premium_divisor = 0\nfunding_lower_bps", "market[2].perpetual.premium_divisor: 0 (in"),
        ("funding_lower_bps", 'position_limit = "0.03"\nfunding_lower_bps', "perpetual.position_limit: 0.03 is not a"),
        ("devnet = true", "devnet = 1", "devnet: expected true or false, not 1"),
        ('"identity"', '"identiy"', "asset[0].weight_kind: 'identiy' is none of identity, inverse_sqrt; did you"),
        ('tick = "1"', 'tick = "0.01"', "market[0].tick: one tick × one step is not a whole number of USDC atoms"),
        (
            'max_quantity = "10"',
            'max_quantity = "10.05"',
            "max_quantity: 10.05 is not a multiple of step 0.1",
        ),
        ("operator_keys = []", 'operator_keys = ["AA=="]', "operator_keys[0]: an Ed25519 key has 32 bytes, not 1"),
        ("subaccounts_per_user = 2", "subaccounts_per_user = 11", "limits.subaccounts_per_user: 11 is above 10"),
        ("exchange =", "= exchange", "not TOML"),
        ('mark_bound = "0.0125"', 'mark_bound = "0.016"', "market[0].mark_bound: 16000000 (in its smallest"),
        ("hand_price_stale_ms = 60000", "hand_price_stale_ms = 0", "limits.hand_price_stale_ms: 0 is below 1"),
        ("[asset.lending]", "[asset.index]\n\n[asset.lending]", "asset[0].index.source: missing"),
        ("[asset.lending]", f"{SOURCE}stale_ms = 0\n[asset.lending]", "asset[0].index.source[0].stale_ms: 0 (in its"),
        ("[asset.lending]", f"{SOURCE}[asset.lending]", "asset[0].index.source[0].stale_ms: missing"),
        ('asset = "USDC"\nchain', 'asset = "SOL"\nchain', "token[1]: this asset has a token on this chain already"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_by_its_key(written: str, instead: str, said: str) -> None:
    text = (PACKAGE / "minimal.toml").read_text()
    assert written in text

    with pytest.raises(GenesisError) as caught:
        genesis.parse(text.replace(written, instead, 1))
    assert said in str(caught.value)


def test_a_file_says_what_an_index_is_made_of() -> None:
    """P-1: the clamp is 30 bps and one source is enough unless the file says otherwise."""
    text = (PACKAGE / "minimal.toml").read_text()
    plain = genesis.parse(text.replace("[asset.lending]", f"{SOURCE}stale_ms = 10000\n[asset.lending]", 1))
    full = f'[asset.index]\nminimum_sources = 1\nclamp = "0.005"\n{SOURCE}weight = 3\nstale_ms = 7\n[asset.lending]'

    assert genesis.parse(text).assets[0].index is None
    assert plain.assets[0].index == IndexParameters((NORTH,), 1, 3_000_000)
    index = genesis.parse(text.replace("[asset.lending]", full, 1)).assets[0].index
    assert index == IndexParameters((PriceSource("north", 3, 7),), 1, 5_000_000)


def test_a_file_may_say_more_of_a_perpetual() -> None:
    """P-14, P-20: the rule book's numbers unless the file says otherwise."""
    text = (PACKAGE / "minimal.toml").read_text()
    plain = genesis.parse(text).markets[2]
    assert plain.perpetual is not None
    assert (plain.perpetual.premium_divisor, plain.perpetual.interest_rate) == (8, 300_000)
    assert (plain.perpetual.funding_clamp, plain.perpetual.position_limit_lots) == (500_000, 0)
    assert plain.perpetual.liquidation_bands is None

    bands = {"limit_min": "0", "limit_max": "9", "impact_min": "0.1", "impact_max": "8"}
    bands |= {"mean_mark_min": "0", "mean_mark_max": "7", "premium_tolerance": "1.5"}
    rows = "\n".join(f'{name} = "{value}"' for name, value in bands.items())
    more = 'premium_divisor = 1\ninterest_rate = "-0.001"\nfunding_clamp = "0.25"\nposition_limit = "5"\n'
    end = 'mark_bound = "0.0125"\n'
    at = text.rindex(end)
    full = f"{text[:at]}{more}{text[at:]}\n[market.perpetual.liquidation_bands]\n{rows}\n"
    perpetual = genesis.parse(full).markets[2].perpetual
    assert perpetual is not None
    assert (perpetual.premium_divisor, perpetual.interest_rate) == (1, -1_000_000)
    assert (perpetual.funding_clamp, perpetual.position_limit_lots) == (250_000_000, 5 * 10**3 // plain.lot_atoms)
    assert perpetual.liquidation_bands == BandParameters(
        0, 9 * RATE_SCALE, RATE_SCALE // 10, 8 * RATE_SCALE, 0, 7 * RATE_SCALE, 1_500_000_000
    )


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(GenesisError, match=r"cannot be read: No such file.*devnet, minimal"):
        genesis.load(tmp_path / "no.toml")
