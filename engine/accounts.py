"""Users, subaccounts, API keys, settings, and transfers between a user's own subaccounts.   [U-1 … U-4]"""

from __future__ import annotations

from engine import lending, margin, outflows, virtual, yields
from engine.commands import (
    AddKey,
    CancelOrder,
    Command,
    OpenSubaccount,
    PlaceOrder,
    PlaceOrders,
    RegisterKey,
    RevokeKey,
    SwapAssets,
    Transfer,
    UpdateAccount,
)
from engine.events import KeyAdded, KeyRevoked, Outcome, SettingsChanged, SubaccountOpened, TransferMade, UserOpened
from engine.parameters import RATE_SCALE
from engine.posting import record
from engine.rejections import Rejection, RejectReason, require
from engine.state import ApiKey, State, Subaccount, User
from ledger.amounts import INT64_MAX
from ledger.journal import JournalKind

MAX_LEVERAGE = 50 * RATE_SCALE
NUMBERS_AHEAD = 10_000
"""How far beyond the next free number a chosen one may be: columns over all subaccounts are as long as the highest."""


def require_owner(state: State, command: Command, key: ApiKey) -> None:
    """The key that signed must belong to the subaccount (or, to open one, the user) that the command names.   [A-5]"""
    if type(command) is PlaceOrder or type(command) is CancelOrder or type(command) is SwapAssets:
        # Nearly every command is one of these.
        if command.subaccount_id != key.subaccount_id:
            raise Rejection(RejectReason.NOT_OWNER, subaccount_id=command.subaccount_id, key_of=key.subaccount_id)
        return
    match command:
        case PlaceOrders(orders):
            for order in orders:
                if order.subaccount_id != key.subaccount_id:
                    raise Rejection(RejectReason.NOT_OWNER, subaccount_id=order.subaccount_id, key_of=key.subaccount_id)
        case OpenSubaccount(user_id):
            require(user_id == key.user_id, RejectReason.NOT_OWNER, user_id=user_id, key_of=key.user_id)
        case Transfer(from_subaccount_id):
            require(
                from_subaccount_id == key.subaccount_id,
                RejectReason.NOT_OWNER,
                subaccount_id=from_subaccount_id,
                key_of=key.subaccount_id,
            )
        case AddKey(subaccount_id) | RevokeKey(subaccount_id):
            require(
                subaccount_id in state.users[key.user_id].subaccount_ids,
                RejectReason.NOT_OWNER,
                subaccount_id=subaccount_id,
                key_of=key.subaccount_id,
            )
        case _:
            owner = command.subaccount_id  # type: ignore[union-attr]  # every other user command names one
            if owner != key.subaccount_id:
                raise Rejection(RejectReason.NOT_OWNER, subaccount_id=owner, key_of=key.subaccount_id)


def register_key(state: State, command: RegisterKey, outcome: Outcome) -> KeyAdded:
    """Register an API key; opens the user or the subaccount that is named but absent, or the next when 0.   [W-9]

    Outside a devnet only for a new user: a key for an existing one is the user's own command.   [A-5]
    """
    _require_new_key(state, command.public_key)
    user = state.users.get(command.user_id) if command.user_id else None
    if user is not None:
        require(state.devnet, RejectReason.UNSIGNED, user_id=command.user_id)
    subaccount = state.subaccounts.get(command.subaccount_id) if command.subaccount_id else None
    if subaccount is not None and (user is None or subaccount.user is not user):
        raise Rejection(RejectReason.NOT_OWNER, subaccount_id=command.subaccount_id, owner=subaccount.user.user_id)
    for name, number in (("user_id", command.user_id), ("subaccount_id", command.subaccount_id)):
        require(0 <= number < 1 << 31, RejectReason.INVALID_PARAMETERS, field=name, value=number)
    most = state.next_subaccount_id + NUMBERS_AHEAD
    require(
        command.subaccount_id <= most,
        RejectReason.INVALID_PARAMETERS,
        subaccount_id=command.subaccount_id,
        maximum=most,
    )
    if user is not None:
        _require_key_room(state, user)
        if subaccount is None and command.subaccount_id:
            _require_subaccount_room(state, user)
    # From here the command succeeds.
    if user is None:
        user = _open_user(state, command.user_id, outcome)
    if subaccount is None:
        if not command.subaccount_id and user.subaccount_ids:
            subaccount = state.subaccounts[user.subaccount_ids[0]]
        else:
            subaccount = _open_subaccount(state, user, command.subaccount_id, outcome)
    return _add_key(state, user, subaccount, command.public_key, outcome)


def add_key(state: State, command: AddKey, outcome: Outcome) -> KeyAdded:
    """Another key for one of the signer's subaccounts.   [A-5]"""
    _require_new_key(state, command.public_key)
    subaccount = state.subaccounts[command.subaccount_id]
    _require_key_room(state, subaccount.user)
    # From here the command succeeds.
    return _add_key(state, subaccount.user, subaccount, command.public_key, outcome)


def revoke_key(state: State, command: RevokeKey, outcome: Outcome) -> KeyRevoked:
    """The key signs nothing any more; a user's last key stays, or the account would be out of reach.   [A-5]"""
    user = state.subaccounts[command.subaccount_id].user
    require(
        user.keys.get(command.public_key) == command.subaccount_id,
        RejectReason.UNKNOWN_KEY,
        key=command.public_key.hex(),
    )
    require(len(user.keys) > 1, RejectReason.KEY_LIMIT, keys=len(user.keys), minimum=1)
    # From here the command succeeds.
    del user.keys[command.public_key]
    del state.api_keys[command.public_key]
    record(outcome, JournalKind.API_KEY_REVOKED, (user.user_id, command.subaccount_id, command.public_key))
    revoked = KeyRevoked(user.user_id, command.subaccount_id, command.public_key)
    outcome.events.append(revoked)
    return revoked


def open_subaccount(state: State, command: OpenSubaccount, outcome: Outcome) -> KeyAdded:
    """A further subaccount of the signer's user, with its first key.   [U-1]"""
    user = state.users[command.user_id]
    _require_new_key(state, command.public_key)
    _require_subaccount_room(state, user)
    _require_key_room(state, user)
    # From here the command succeeds.
    subaccount = _open_subaccount(state, user, 0, outcome)
    return _add_key(state, user, subaccount, command.public_key, outcome)


def transfer(state: State, command: Transfer, outcome: Outcome) -> TransferMade:
    """Between a user's own subaccounts: instant, free, never provisional or locked funds.   [U-2, D-5]"""
    source = state.subaccounts[command.from_subaccount_id]
    target = state.subaccounts.get(command.to_subaccount_id)
    require(target is not None, RejectReason.UNKNOWN_SUBACCOUNT, subaccount_id=command.to_subaccount_id)
    assert target is not None
    require(
        target.user is source.user,
        RejectReason.NOT_OWNER,
        subaccount_id=command.to_subaccount_id,
        owner=source.user.user_id,
    )
    require(target is not source, RejectReason.SAME_SUBACCOUNT, subaccount_id=command.to_subaccount_id)
    require(command.asset_id in state.assets, RejectReason.UNKNOWN_ASSET, asset_id=command.asset_id)
    require(0 < command.atoms <= INT64_MAX, RejectReason.INVALID_QUANTITY, atoms=command.atoms, maximum=INT64_MAX)
    taken = outflows.plan(state, source, command.asset_id, outcome.at_us, command.atoms, command.auto_borrow, True)
    # From here the command succeeds.
    outflows.transfer(state, outcome, source, target, command.asset_id, taken)
    made = TransferMade(command.from_subaccount_id, command.to_subaccount_id, command.asset_id, command.atoms)
    outcome.events.append(made)
    return made


def update(state: State, command: UpdateAccount, outcome: Outcome) -> None:
    """Settings of one subaccount; what is None stays.   [U-4, W-10]"""
    if command.leverage_limit is not None:
        require(
            RATE_SCALE <= command.leverage_limit <= MAX_LEVERAGE,
            RejectReason.INVALID_LEVERAGE,
            asked=command.leverage_limit,
            maximum=MAX_LEVERAGE,
        )
    subaccount = state.subaccounts[command.subaccount_id]
    if command.leverage_limit is not None and command.leverage_limit < subaccount.leverage_limit:
        _require_leverage(state, subaccount, command.leverage_limit, outcome.at_us)
    if command.auto_realize_pnl is False:
        require(state.usdc in state.pools, RejectReason.LENDING_CLOSED, asset_id=state.usdc)
    # From here the command succeeds.
    for name in (
        "auto_lend",
        "auto_repay_borrows",
        "auto_borrow_settlements",
        "auto_realize_pnl",
        "leverage_limit",
    ):
        value = getattr(command, name)
        if value is not None:
            setattr(subaccount, name, value)
    yields.collect_all(state, outcome, subaccount)
    if command.auto_realize_pnl is not None:
        if subaccount.auto_realize_pnl:
            virtual.convert_all(state, outcome, subaccount)
        virtual.note_mode(state, subaccount)
    if subaccount.auto_lend or subaccount.auto_repay_borrows:
        state.automatic[command.subaccount_id] = None
        for asset_id in sorted(subaccount.asset_ids):
            lending.settle_asset(state, outcome, subaccount, asset_id)
    else:
        state.automatic.pop(command.subaccount_id, None)
    outcome.events.append(SettingsChanged(command.subaccount_id))


def _require_leverage(state: State, subaccount: Subaccount, leverage_limit: int, at_us: int) -> None:
    """A lower limit raises initial margin at once; what would fail M-5 then is refused.   [M-10]"""
    if not subaccount.margined:
        return
    before = subaccount.leverage_limit
    subaccount.leverage_limit = leverage_limit
    try:
        after = margin.sums(state, subaccount, at_us)
    finally:
        subaccount.leverage_limit = before
    equity = after.equity - margin.open_order_loss(state, subaccount)
    if after.is_exposed and equity <= after.initial:
        raise Rejection(
            RejectReason.MAX_LEVERAGE,
            asked=leverage_limit,
            net_equity_usd=equity,
            initial_margin_usd=after.initial,
        )


def _require_new_key(state: State, public_key: bytes) -> None:
    require(len(public_key) == 32, RejectReason.INVALID_PARAMETERS, key_bytes=len(public_key), expected=32)
    require(public_key not in state.api_keys, RejectReason.KEY_TAKEN, key=public_key.hex())


def _require_key_room(state: State, user: User) -> None:
    limit = state.limits.keys_per_user
    require(len(user.keys) < limit, RejectReason.KEY_LIMIT, keys=len(user.keys), maximum=limit)


def _require_subaccount_room(state: State, user: User) -> None:
    limit = state.limits.subaccounts_per_user
    count = len(user.subaccount_ids)
    require(count < limit, RejectReason.SUBACCOUNT_LIMIT, subaccounts=count, maximum=limit)


def _open_user(state: State, user_id: int, outcome: Outcome) -> User:
    user = User(user_id or state.next_user_id, outcome.at_us)
    state.users[user.user_id] = user
    while state.next_user_id in state.users:
        state.next_user_id += 1
    record(outcome, JournalKind.USER_OPENED, (user.user_id,))
    outcome.events.append(UserOpened(user.user_id))
    return user


def _open_subaccount(state: State, user: User, subaccount_id: int, outcome: Outcome) -> Subaccount:
    subaccount = Subaccount(subaccount_id or state.next_subaccount_id, user, outcome.at_us)
    state.subaccounts[subaccount.subaccount_id] = subaccount
    state.highest_subaccount_id = max(state.highest_subaccount_id, subaccount.subaccount_id)
    user.subaccount_ids.append(subaccount.subaccount_id)
    while state.next_subaccount_id in state.subaccounts:
        state.next_subaccount_id += 1
    record(outcome, JournalKind.SUBACCOUNT_OPENED, (user.user_id, subaccount.subaccount_id))
    outcome.events.append(SubaccountOpened(user.user_id, subaccount.subaccount_id))
    return subaccount


def _add_key(state: State, user: User, subaccount: Subaccount, public_key: bytes, outcome: Outcome) -> KeyAdded:
    user.keys[public_key] = subaccount.subaccount_id
    state.api_keys[public_key] = ApiKey(user.user_id, subaccount.subaccount_id)
    record(outcome, JournalKind.API_KEY_ADDED, (user.user_id, subaccount.subaccount_id, public_key))
    added = KeyAdded(user.user_id, subaccount.subaccount_id, public_key)
    outcome.events.append(added)
    return added
