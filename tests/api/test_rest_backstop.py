"""Backstop providers over HTTP: they register with their own signature, and see what is left.   [L-4, W-7]"""

from __future__ import annotations

from pathlib import Path

from tests.api.edge import venue


async def test_a_user_registers_and_ends_it(tmp_path: Path) -> None:
    async with venue(tmp_path) as running:
        alice = await running.trader(USDC="1000")
        path = "/satchel/v1/backstop"

        asked = await alice.send("POST", path, "backstopRegister", {"notional": "2500.5"})
        assert asked.status == 200, asked
        assert asked.json == {"subaccountId": alice.subaccount_id, "notional": "2500.5"}
        shown = await alice.send("GET", path, "backstopQuery")
        assert shown.json == asked.json
        for wrong in ("-1", "1e5", "1.123456789"):
            refused = await alice.send("POST", path, "backstopRegister", {"notional": wrong})
            assert refused.status == 400, refused

        ended = await alice.send("POST", path, "backstopRegister", {"notional": "0"})

        assert ended.json["notional"] == "0"
        assert not running.node.sequencer.state.backstops
