# pragma version 0.4.3
# An ERC-20 with everything a deposit check must see through, chosen at deployment. For tests and devnets only.

event Transfer:
    sender: indexed(address)
    receiver: indexed(address)
    amount: uint256

HONEST: constant(uint256) = 0
RETURNS_FALSE: constant(uint256) = 1
LIES: constant(uint256) = 2
KEEPS_FEE: constant(uint256) = 3
REVERTS: constant(uint256) = 4

name: public(String[32])
symbol: public(String[32])
decimals: public(uint8)
totalSupply: public(uint256)
balanceOf: public(HashMap[address, uint256])
behaviour: public(uint256)


@deploy
def __init__(_symbol: String[32], _decimals: uint8, _supply: uint256, _behaviour: uint256):
    self.name = _symbol
    self.symbol = _symbol
    self.decimals = _decimals
    self.totalSupply = _supply
    self.behaviour = _behaviour
    self.balanceOf[msg.sender] = _supply
    log Transfer(sender=empty(address), receiver=msg.sender, amount=_supply)


@external
def transfer(_to: address, _amount: uint256) -> bool:
    if self.behaviour == RETURNS_FALSE:
        return False
    assert self.behaviour != REVERTS
    if self.behaviour != LIES:
        kept: uint256 = 0
        if self.behaviour == KEEPS_FEE:
            kept = _amount // 10
        self.balanceOf[msg.sender] -= _amount
        self.balanceOf[_to] += _amount - kept
    log Transfer(sender=msg.sender, receiver=_to, amount=_amount)
    return True


@external
def turn(_behaviour: uint256):
    # Anyone may: this is no token for keeps.
    self.behaviour = _behaviour
