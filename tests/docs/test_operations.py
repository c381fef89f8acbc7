"""What docs/operations.md tells an operator to do is done here, on a real server."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from ledger.database import open_engine, upgrade
from ledger.resources import migrations_dir
from tools.servers import PostgresServer

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
STATEMENT = re.compile(r"^(?:DO \$\$.*?\$\$|[A-Z][^;]*);", re.MULTILINE | re.DOTALL)
LOG_TABLES = {"command", "journal", "posting", "posting_batch", "block"}


@pytest.fixture
def server_with_roles(own_postgres: PostgresServer) -> PostgresServer:
    """A server on which the page was followed: its first block, the tables, roles.sql, its second block."""
    roles, members = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    run(own_postgres.url(), roles)
    owner = open_engine(url_of(own_postgres, "satchel_owner"))
    upgrade(owner)
    owner.dispose()
    run(url_of(own_postgres, "satchel_owner"), (migrations_dir() / "roles.sql").read_text())
    run(url_of(own_postgres, "satchel_owner"), members)
    return own_postgres


@pytest.mark.node
def test_the_node_can_add_to_the_log_and_never_change_it(server_with_roles: PostgresServer) -> None:
    rights = rights_of(server_with_roles, "satchel_node")

    assert rights.keys() >= LOG_TABLES
    for table in LOG_TABLES:
        assert rights[table] == {"SELECT", "INSERT"}, table
    assert rights["tip"] == {"SELECT"}
    assert rights["chain_cursors"] == {"SELECT", "INSERT", "UPDATE", "DELETE"}


@pytest.mark.node
def test_the_reader_can_only_read(server_with_roles: PostgresServer) -> None:
    rights = rights_of(server_with_roles, "satchel_auditor")

    assert rights.keys() >= LOG_TABLES
    assert set.union(*rights.values()) == {"SELECT"}


@pytest.mark.node
def test_the_node_starts_without_the_right_to_make_tables(server_with_roles: PostgresServer) -> None:
    node = open_engine(url_of(server_with_roles, "satchel_node"))

    upgrade(node)
    with node.connect() as connection, pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
        connection.execute(sa.text("CREATE TABLE intruder (id INTEGER)"))

    node.dispose()


def url_of(server: PostgresServer, role: str) -> str:
    """The URL of the exchange's database for a role; the server trusts local connections."""
    return server.url("satchel").replace("//postgres@", f"//{role}@")


def run(url: str, script: str) -> None:
    """Run a script statement by statement, as psql would."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in STATEMENT.findall(re.sub(r"--.*", "", script)):
            connection.execute(statement)


def rights_of(server: PostgresServer, role: str) -> dict[str, set[str]]:
    """What a role may do with each table."""
    verbs = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    question = """SELECT tablename, verb FROM pg_tables, unnest(%s::text[]) AS verb
        WHERE schemaname = 'public' AND has_table_privilege(%s, 'public.' || tablename, verb)"""
    rights: dict[str, set[str]] = defaultdict(set)
    with psycopg.connect(server.url("satchel").replace("+psycopg", "")) as connection:
        for table, verb in connection.execute(question, (list(verbs), role)):
            rights[table].add(verb)
    return dict(rights)
