"""The servers that the other tests lean on are real, separate, and gone afterwards."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tarfile
import textwrap
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tools.servers import AnvilNode, PostgresServer, readable_by_all

ROOT = Path(__file__).resolve().parents[1]


def test_a_database_remembers_what_was_written(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE note (text VARCHAR(10) NOT NULL)"))
        connection.execute(sa.text("INSERT INTO note VALUES ('kept')"))
    engine.dispose()

    with sa.create_engine(database_url).connect() as connection:
        assert connection.execute(sa.text("SELECT text FROM note")).scalar_one() == "kept"


@pytest.mark.node
@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_postgres_database_of_its_own(postgres_url: str, turn: int) -> None:
    with sa.create_engine(postgres_url).begin() as connection:
        tables = sa.inspect(connection).get_table_names()
        connection.execute(sa.text("CREATE TABLE left_behind (turn INTEGER)"))

    assert tables == []


@pytest.mark.node
def test_postgres_never_runs_as_root(postgres: PostgresServer) -> None:
    assert postgres.process is not None

    owner = Path(f"/proc/{postgres.process.pid}").stat().st_uid

    assert owner != 0
    assert owner == (os.geteuid() or owner)


@pytest.mark.node
def test_postgres_keeps_committed_rows_through_a_crash_on_the_same_port(own_postgres: PostgresServer) -> None:
    engine = sa.create_engine(own_postgres.url())
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE note AS SELECT 42 AS number"))
    engine.dispose()

    own_postgres.stop("immediate")
    with pytest.raises(sa.exc.OperationalError):
        sa.create_engine(own_postgres.url()).connect()
    own_postgres.start()

    with sa.create_engine(own_postgres.url()).connect() as connection:
        assert connection.execute(sa.text("SELECT number FROM note")).scalar_one() == 42


@pytest.mark.node
def test_servers_end_when_the_process_that_started_them_is_killed(postgres: PostgresServer) -> None:
    script = textwrap.dedent("""
        import time
        from tools.servers import postgres_server
        with postgres_server() as server:
            print(server.process.pid, server.folder, flush=True)
            time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()

    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.node
def test_a_block_of_anvil_becomes_final_four_blocks_later(anvil: AnvilNode) -> None:
    web3 = pytest.importorskip("web3")
    client = web3.Web3(web3.Web3.HTTPProvider(anvil.url))

    client.provider.make_request("anvil_mine", ["0xc"])

    assert client.eth.get_block("latest")["number"] == 12
    assert client.eth.get_block("finalized")["number"] == 8


@pytest.mark.node
def test_an_anvil_that_does_not_mine_keeps_a_payment_pending(anvil_factory: Callable[..., AnvilNode]) -> None:
    web3 = pytest.importorskip("web3")
    client = web3.Web3(web3.Web3.HTTPProvider(anvil_factory("--no-mining").url))
    payer, payee = client.eth.accounts[:2]

    client.eth.send_transaction({"from": payer, "to": payee, "value": 1})

    assert client.eth.get_block("latest")["number"] == 0
    assert client.eth.get_transaction_count(payer, "pending") == 1


def test_a_missing_tool_skips_and_fails_where_it_is_required(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile("""
        from tests.fixtures.servers import tool_missing

        def test_needs_a_tool():
            tool_missing("no such tool")
    """)

    monkeypatch.delenv("SATCHEL_REQUIRE_TOOLS", raising=False)
    pytester.runpytest_inprocess().assert_outcomes(skipped=1)
    monkeypatch.setenv("SATCHEL_REQUIRE_TOOLS", "1")
    pytester.runpytest_inprocess().assert_outcomes(failed=1)


def test_a_private_folder_is_not_readable_by_all(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "program").touch()

    assert not readable_by_all(private / "program")


def test_an_archive_that_was_altered_is_not_installed(tmp_path: Path) -> None:
    fetch_anvil = runpy.run_path(str(ROOT / "tools" / "setup" / "fetch_anvil.py"))
    archive = tmp_path / "anvil.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(Path(__file__), fetch_anvil["MEMBER"])

    with pytest.raises(RuntimeError, match="expected sha512-"):
        fetch_anvil["require_integrity"](archive)


def test_the_lock_names_no_host_and_hashes_everything() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [number for number, line in enumerate(lines) if line and not line.startswith(" ")]

    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert all("==" in lines[number] and "--hash=sha256:" in lines[number + 1] for number in pins)


def test_the_lock_pins_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = sum(project["optional-dependencies"].values(), start=project["dependencies"])
    pinned = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}

    for requirement in wanted:
        name = requirement.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip()
        assert name in pinned or name == project["name"], f"{name} is not in requirements.lock: make lock"


@pytest.mark.node
@pytest.mark.slow
async def test_the_browser_of_the_system_opens_a_page(chromium_path: str) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=chromium_path, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.set_content("<h1 id=top>book</h1>")
        heading = await page.inner_text("#top")
        await browser.close()

    assert heading == "book"


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_clients_of_others_live_in_environments_of_their_own(ccxt_python: Path, bpx_python: Path) -> None:
    for python, module in [(ccxt_python, "ccxt.pro"), (bpx_python, "bpx.account")]:
        assert subprocess.run([python, "-c", f"import {module}"], check=False).returncode == 0
        ours = subprocess.run([python, "-c", "import sqlalchemy"], capture_output=True, text=True, check=False)
        assert "No module named 'sqlalchemy'" in ours.stderr
