# pragma version 0.4.3
# Pays others in inner calls, some of which revert while the transaction succeeds. For tests and devnets only.

MOST: constant(uint256) = 16


@external
@payable
def pay(_to: DynArray[address, MOST], _amounts: DynArray[uint256, MOST], _reverts: DynArray[bool, MOST], _fails: bool):
    for i: uint256 in range(len(_to), bound=MOST):
        if _reverts[i]:
            done: bool = raw_call(
                self,
                abi_encode(_to[i], method_id=method_id("pay_and_revert(address)")),
                value=_amounts[i],
                revert_on_failure=False,
            )
        else:
            raw_call(_to[i], b"", value=_amounts[i])
    assert not _fails


@external
@payable
def pay_and_revert(_to: address):
    raw_call(_to, b"", value=msg.value)
    raise "taken back"
