"""Each rung of the liquidation ladder computed again from the journal: what a step says against what its images give.

An image (`engine/formulas/standing.py`) says what the account was made of; the step's memo says what it did. From both,
and the parameters, come net equity, maintenance margin and E before and after, and the numbers that the rules ask for:
bankruptcy prices, slices, values of debts, shared losses.   [L-4 … L-8, L-10]
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from engine.events import LendingEvent
from engine.formulas import liquidation as formulas
from engine.formulas import standing
from engine.formulas.margin import notional_usd
from engine.formulas.prices import lot_value, mark_quantum
from engine.formulas.standing import HoldingImage, Image, PositionImage, Standing
from engine.parameters import RATE_SCALE
from engine.standings import Moment
from ledger.amounts import mul_div_down, mul_div_up
from ledger.chart import contracts
from ledger.journal import JournalKind
from tools.parameters import Parameters

OWNER = {
    JournalKind.NETTED: 0,
    JournalKind.BACKSTOP: 0,
    JournalKind.ADL: 1,
    JournalKind.INSURANCE: 0,
    JournalKind.COLLATERAL_TAKEN: 0,
    JournalKind.DEBT_WRITTEN_DOWN: 0,
    JournalKind.LENDER_ADL: 1,
    JournalKind.LOSS_SHARED: 1,
    JournalKind.WRITE_OFF: 0,
}
"""Kind of a step → where in its memo the account in liquidation is."""
STANDING = {
    JournalKind.NETTED: (5, 4),
    JournalKind.BACKSTOP: (11, 3),
    JournalKind.ADL: (10, 3),
    JournalKind.INSURANCE: (6, 3),
    JournalKind.COLLATERAL_TAKEN: (6, 3),
    JournalKind.DEBT_WRITTEN_DOWN: (11, 3),
    JournalKind.LENDER_ADL: (9, 3),
}
"""Kind → where its memo has the standing before, and of how many numbers: net equity first, E last; then after."""


class Again(NamedTuple):
    """What a step's images give, and wherein its memo differs: empty where it says the same."""

    before: Standing
    after: Standing
    differences_before: list[str]
    differences: list[str]


class Ladder:
    """What the journal has said so far of accounts in liquidation."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._images: dict[tuple[int, int], Image] = {}
        """(subaccount, kind) → what it is made of before the next such step."""
        self._frozen: dict[int, Image] = {}
        """What ADL reckons with.   [L-6]"""
        self._marks: dict[int, set[tuple[int, int]]] = {}
        """(asset, mark) of debts at a moment that froze one.   [L-7]"""

    def begin(self, subaccount: int) -> None:
        """Nothing is frozen when a liquidation starts."""
        self._frozen.pop(subaccount, None)
        self._marks.pop(subaccount, None)

    def note(self, memo: list[Any]) -> None:
        """One LIQUIDATION_IMAGE; what is after a step is looked for by the step."""
        number, kind, moment, image = memo[0], memo[1], memo[2], standing.decode(memo[3])
        if moment == Moment.BEFORE or kind == JournalKind.ADL:
            self._images[number, kind] = image
        if moment == Moment.FROZEN and kind == JournalKind.ADL:
            self._frozen[number] = image
        elif moment == Moment.FROZEN:
            marks = self._marks.setdefault(number, set())
            marks.update((held.asset_id, held.mark) for held in image.holdings)

    def again(self, kind: int, memo: list[Any], following: Iterable[tuple[int, list[Any]]]) -> Again | None:
        """A step computed again; `following`: kinds and memos behind it in its command. None: it has no image."""
        number = memo[OWNER[JournalKind(kind)]]
        before = self._images.get((number, kind))
        if before is None:
            return None
        images = {
            said[0]: standing.decode(said[3])
            for other, said in reversed(list(following))
            if other == JournalKind.LIQUIDATION_IMAGE and said[1:3] == [kind, Moment.AFTER]
        }
        after = _moved(kind, memo, before)
        if after is None:
            after = images.get(number)
            if after is None:
                return None
        self._images[number, kind] = after
        found = Again(self._standing(before), self._standing(after), [], [])
        if kind in STANDING:
            start, count = STANDING[JournalKind(kind)]
            found.differences_before.extend(_figures(found.before, memo[start : start + count]))
            found.differences.extend(_figures(found.after, memo[start + count : start + 2 * count]))
        found.differences.extend(self._rule(kind, memo, before, after))
        if kind == JournalKind.LENDER_ADL:
            found.differences.extend(self._borrower(memo, images))
        return found

    def _standing(self, image: Image) -> Standing:
        return standing.standing(image, self.parameters.assets, self.parameters.perpetuals)

    def _rule(self, kind: int, memo: list[Any], before: Image, after: Image) -> list[str]:
        match kind:
            case JournalKind.NETTED:
                left = _holding(before, memo[1]).owed - memo[2]
                rounded = max(left - 1, min(left + 1, _holding(after, memo[1]).owed))
                return [
                    *_differs("mark", memo[4], _holding(before, memo[1]).mark),
                    *_differs("owed after", _holding(after, memo[1]).owed, rounded),
                ]
            case JournalKind.BACKSTOP:
                return self._slice(memo, before)
            case JournalKind.ADL:
                return self._bankruptcy_price(memo)
            case JournalKind.COLLATERAL_TAKEN:
                return self._collateral(memo, before)
            case JournalKind.DEBT_WRITTEN_DOWN:
                return self._debt(memo, before)
            case JournalKind.LENDER_ADL:
                mark = _holding(before, memo[0]).mark
                value = self._usdc(before, memo[0], memo[3], mark, is_up=True)
                return [*_differs("mark", memo[4], mark), *_differs("paid", memo[5], value)]
            case JournalKind.LOSS_SHARED if len(memo) > 6:
                return _differs("loss per lot", memo[4], formulas.loss_per_lot(memo[3], memo[6]))
            case JournalKind.WRITE_OFF:
                return _differs("written off", memo[1], min(memo[1], memo[2], -before.unsettled))
        return []

    def _bankruptcy_price(self, memo: list[Any]) -> list[str]:
        """p = mark − E × s / q, of what was frozen; at mark where nobody was skipped.   [L-6]"""
        market_id, image = memo[0], self._frozen.get(memo[1])
        if image is None:
            return ["E was frozen in no record"]
        market = self.parameters.markets[market_id]
        shares = standing.maintenance(image, self.parameters.assets, self.parameters.perpetuals)
        equity, total = self._standing(image).realizable, sum(shares.values())
        held = next((each for each in image.positions if each.market_id == market_id), None)
        if held is None or not held.lots:
            return [f"position said, again none in market {market_id}"]
        price = held.mark
        if not memo[7]:
            quantum = lot_value(market, mark_quantum(market))
            share = shares[contracts(market_id)]
            unit = 10 ** self.parameters.assets[market.quote_asset_id].decimals
            price = formulas.bankruptcy_price(
                held.mark, quantum, equity, share, total, held.lots, unit, image.usdc_mark
            )
        return [
            *_differs("price", memo[4], price),
            *_differs("mark", memo[5], held.mark),
            *_differs("last settled mark", memo[6], held.settled),
            *_differs("frozen E", memo[8], equity),
            *_differs("frozen maintenance", memo[9], total),
        ]

    def _slice(self, memo: list[Any], image: Image) -> list[str]:
        """k × E, k × every position, half of it paid, the least incentive; k is part / parts.   [L-4]"""
        part, parts, risk = memo[2], memo[3], self.parameters.risk
        unit, usd = 10**self.parameters.usdc_decimals, image.usdc_mark
        worth = self._standing(image).realizable
        gross = 0
        found = []
        passed = memo[-1] if len(memo) > 17 else []
        debts = {each[1] for each in passed if each[0] == memo[0] and each[2] == LendingEvent.BORROW_REPAY}
        for held in image.holdings:
            atom = 10 ** self.parameters.assets[held.asset_id].decimals
            worth += notional_usd(held.receivable, held.mark, atom)
            if held.asset_id in debts:
                gross += notional_usd(mul_div_up(held.owed - held.receivable, part, parts), held.mark, atom)
        pieces = {piece[0]: piece for piece in memo[8]}
        for position in image.positions:
            lots = formulas.slice_of(position.lots, part, parts)
            gross += notional_usd(abs(lots) * position.mark, usd, unit)
            said = pieces.get(position.market_id, (position.market_id, 0, 0, position.mark, position.settled))
            found += _differs(f"lots of market {position.market_id}", said[1], lots)
            found += _differs(f"mark of market {position.market_id}", said[3], position.mark)
        equity = mul_div_down(worth, part, parts)
        share = mul_div_up(max(0, equity), risk.backstop_share, RATE_SCALE)
        least = formulas.minimum_incentive(gross, risk.backstop_incentive)
        return [
            *found,
            *_differs("gross notional", memo[4], gross),
            *_differs("part of E", memo[5], equity),
            *_differs("paid to the backstop fund", memo[6], formulas.quote_atoms_up(share, unit, usd)),
            *_differs("incentive", memo[7], formulas.quote_atoms_up(max(0, least - equity), unit, usd)),
            *_differs("unsettled equity", memo[10], formulas.slice_of(image.unsettled, part, parts)),
        ]

    def _collateral(self, memo: list[Any], image: Image) -> list[str]:
        mark = image.usdc_mark if memo[3] == image.usdc else _holding(image, memo[3]).mark
        found = _differs("mark", memo[5], mark)
        if memo[1] in ("collateral", "adl"):
            found += _differs("paid", memo[2], self._usdc(image, memo[3], memo[4], mark, is_up=False))
        return found

    def _debt(self, memo: list[Any], image: Image) -> list[str]:
        """V = n × the frozen mark.   [L-7]"""
        number, asset_id, owed, mark = memo[0], memo[1], memo[2], memo[3]
        found = []
        if asset_id == image.usdc:
            value = owed
        else:
            held = _holding(image, asset_id)
            found = _differs("atoms owed", owed, held.owed - held.receivable)
            usd = notional_usd(held.owed - held.receivable, mark, 10 ** self.parameters.assets[asset_id].decimals)
            value = formulas.quote_atoms_up(usd, 10**self.parameters.usdc_decimals, image.usdc_mark)
        marks = sorted(each for asset, each in self._marks.get(number, ()) if asset == asset_id)
        found += [] if mark in marks else _differs("frozen mark", mark, marks[-1] if marks else 0)
        return [*found, *_differs("value", memo[4], value)]

    def _borrower(self, memo: list[Any], images: dict[int, Image]) -> list[str]:
        """The borrower's side of a lender's ADL.   [L-8]"""
        before, after = self._images.get((memo[2], JournalKind.LENDER_ADL)), images.get(memo[2])
        if before is None or after is None:
            return ["the borrower has no image"]
        found = _figures(self._standing(before), memo[15:18]) + _figures(self._standing(after), memo[18:21])
        return [f"borrower's {each}" for each in found]

    def _usdc(self, image: Image, asset_id: int, atoms: int, mark: int, *, is_up: bool) -> int:
        """Atoms at a mark in USDC atoms."""
        above = mark * 10**self.parameters.usdc_decimals
        below = 10 ** self.parameters.assets[asset_id].decimals * image.usdc_mark
        return mul_div_up(atoms, above, below) if is_up else mul_div_down(atoms, above, below)


def whole(memo: Any) -> Any:
    """A memo with its decimal strings as the integers that they stand for: those that may not fit 64 bits."""
    if isinstance(memo, list):
        return [whole(each) for each in memo]
    if isinstance(memo, str) and memo.removeprefix("-").isdecimal():
        return int(memo)
    return memo


def _moved(kind: int, memo: list[Any], image: Image) -> Image | None:
    """The image after a step that moves no shares, from the one before it; None: only the journal's own can tell."""
    match kind:
        case JournalKind.ADL:
            return _with_position(image, memo[0], memo[3], (memo[6] - memo[4]) * memo[3])
        case JournalKind.INSURANCE:
            return _with_holding(image, image.usdc, memo[2])
        case JournalKind.LOSS_SHARED:
            return _with_position(image, memo[0], 0, memo[3])
        case JournalKind.WRITE_OFF:
            return image._replace(unsettled=image.unsettled + memo[1])
        case JournalKind.COLLATERAL_TAKEN:
            why, paid, asset_id, atoms = memo[1:5]
            if why == "lent":
                return None
            if why == "unsettled":
                return _with_holding(image._replace(unsettled=image.unsettled - atoms), image.usdc, paid)
            if why == "adl":
                return _with_position(_with_holding(image, asset_id, -atoms), memo[13], 0, paid)
            return _with_holding(_with_holding(image, asset_id, -atoms), image.usdc, paid)
    return None


def _with_position(image: Image, market_id: int, lots: int, cost: int) -> Image:
    positions = tuple(
        each._replace(lots=each.lots + lots, cost=each.cost + cost) if each.market_id == market_id else each
        for each in image.positions
    )
    if all(each.market_id != market_id for each in positions):
        positions += (PositionImage(market_id, lots, cost, 0, 0),)
    return image._replace(positions=positions)


def _with_holding(image: Image, asset_id: int, atoms: int) -> Image:
    if not atoms:
        return image
    held = _holding(image, asset_id)
    if held not in image.holdings:
        held = held._replace(mark=image.usdc_mark, is_sold=True)
    others = tuple(each for each in image.holdings if each.asset_id != asset_id)
    return image._replace(holdings=(*others, held._replace(quantity=held.quantity + atoms)))


def _holding(image: Image, asset_id: int) -> HoldingImage:
    """What it has of an asset; of what is not in the image, nothing."""
    none = HoldingImage(asset_id, 0, 0, 0, 0, False)
    return next((each for each in image.holdings if each.asset_id == asset_id), none)


def _figures(found: Standing, said: list[Any]) -> list[str]:
    return [
        *_differs("equity", said[0], found.equity),
        *_differs("maintenance", said[1], found.maintenance),
        *_differs("E", said[-1], found.realizable),
        *(_differs("notional", said[2], found.notional) if len(said) == 4 else ()),
    ]


def _differs(what: str, said: Any, found: int) -> list[str]:
    """Both numbers, where they are not the same."""
    return [] if said == found else [f"{what} {said}, again {found}"]
