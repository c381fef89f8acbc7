"""The exchange changes its key while it runs: recorded under the old key, signed by the new. [A-4]"""

from __future__ import annotations

from pathlib import Path

import pytest

from api.node import Node
from api.settings import Settings
from engine.commands import RegisterKey, RotateKey
from engine.rejections import Rejection
from ledger.checkpoints import read_checkpoint
from ledger.database import open_engine
from ledger.verification import verify


async def test_a_rotated_exchange_goes_on_after_a_restart_and_its_log_verifies(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, devnet=True)
    node = Node(settings)
    await node.start()
    old = node.sequencer.chain.public_key
    new = node.keyring.new_exchange_key().public_key
    await node.submit(RotateKey(new))
    await node.submit(RegisterKey(b"a" * 32))
    await node.stop()

    again = Node(settings)
    await again.start()
    await again.submit(RegisterKey(b"b" * 32))
    await again.stop()

    database = open_engine(settings.url, read_only=True)
    report = verify(database, checkpoint=tmp_path / "checkpoint.txt")
    database.dispose()
    assert again.sequencer.chain.public_key == new != old
    assert not report.findings
    assert read_checkpoint(tmp_path / "checkpoint.txt", [new]).size == again.sequencer.chain.height + 1


async def test_a_key_whose_file_is_not_here_is_refused(tmp_path: Path) -> None:
    node = Node(Settings(data=tmp_path, devnet=True))
    await node.start()

    with pytest.raises(Rejection, match="UNKNOWN_KEY"):
        await node.submit(RotateKey(b"x" * 32))

    assert node.is_ready()
    await node.stop()
