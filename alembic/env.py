"""Runs the migrations on the connection it is given, or on the URL of the configuration.

`ledger.database.upgrade` hands a connection; Alembic's own command line may be used with
`-x database=URL` as well.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from ledger.database import database_url, metadata, open_engine


def run(connection: sa.Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    from pathlib import Path

    url = context.get_x_argument(as_dictionary=True).get("database")
    with open_engine(database_url(Path(), url)).begin() as opened:
        run(opened)
