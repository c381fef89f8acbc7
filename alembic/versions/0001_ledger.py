"""The ledger: commands, journal, postings, blocks, and the triggers with which the database guards them.   [A-8]

Revision 0001, the first.

The same promises on SQLite and PostgreSQL. Rows of a block come first, the block's own row last: its trigger sees all
of them and refuses a block that does not continue the chain, whose counts differ, or that holds a transaction out of
balance. The first row of a block "opens" it in `tip`; only the block's row closes it again, and a deferred foreign key
refuses a commit while it is open. What is sealed takes no further row, no update and no delete.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("command", "journal", "posting", "posting_batch", "block")
INT64_MAX = 2**63 - 1


def upgrade() -> None:
    _create_tables()
    if op.get_bind().dialect.name == "sqlite":
        statements = _sqlite_triggers()
    else:
        statements = postgresql_guards()
    for statement in statements:
        op.execute(sa.text(statement.replace(":", "\\:")))


def downgrade() -> None:
    for table in ("tip", "snapshot", "block", "posting_batch", "posting", "journal", "command"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        for function in ("refuse_change", "open_with_commands", "open_with_journal", "open_with_postings",
                         "check_block", "seal_block", "guard_tip"):
            op.execute(f"DROP FUNCTION ledger_{function}()")


def _create_tables() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def key(name: str) -> sa.Column[int]:
        return sa.Column(name, number, primary_key=True, autoincrement=False)

    def ints(*names: str, nullable: bool = False) -> list[sa.Column[int]]:
        return [sa.Column(name, number, nullable=nullable) for name in names]

    def blobs(*names: str, nullable: bool = False) -> list[sa.Column[bytes]]:
        return [sa.Column(name, sa.LargeBinary, nullable=nullable) for name in names]

    op.create_table(
        "command",
        key("seq"),
        *ints("at_us", "outcome"),
        sa.Column("kind", sa.Text, nullable=False),
        *blobs("payload"),
        *blobs("api_key", "signature", "signed_text", nullable=True),
        *ints("timestamp_ms", "window_ms", "received_ms", nullable=True),
        *ints("block_height"),
        *blobs("hash"),
        sqlite_strict=True,
    )
    op.create_table(
        "journal",
        key("seq"),
        *ints("command_seq", "at_us", "kind"),
        *blobs("memo"),
        *ints("posting_count", "batch_count", "block_height"),
        *blobs("hash"),
        sqlite_strict=True,
    )
    op.create_table(
        "posting",
        key("journal_seq"),
        key("line"),
        *ints("account", "asset", "atoms_high", "atoms"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("ix_posting_account", "posting", ["account", "asset", "journal_seq"])
    op.create_table(
        "posting_batch",
        key("journal_seq"),
        key("line"),
        *ints("account_kind", "asset", "row_count", "total_high", "total"),
        *blobs("owners", "atoms", "root"),
        sqlite_strict=True,
    )
    op.create_table(
        "block",
        key("height"),
        *blobs("previous_hash"),
        *ints("at_us", "first_command", "command_count"),
        *blobs("commands_root"),
        *ints("first_journal", "journal_count"),
        *blobs("journal_root", "journal_head", "log_root", "public_key", "hash", "signature"),
        sqlite_strict=True,
    )
    op.create_table(
        "snapshot",
        key("height"),
        *blobs("block_hash", "state_hash", "content", "public_key", "signature"),
        sqlite_strict=True,
    )
    op.create_table(
        "tip",
        key("one"),
        *ints("epoch", "height"),
        *blobs("block_hash"),
        *ints("next_command", "next_journal", "open_command", "open_journal"),
        sa.Column(
            "open_height",
            number,
            sa.ForeignKey("block.height", name="fk_tip_open_height", deferrable=True, initially="DEFERRED"),
            nullable=True,
        ),
        *blobs("log_peaks"),
        sa.CheckConstraint("one = 1", name="one"),
        sqlite_strict=True,
    )
    zeros = "zeroblob(32)" if op.get_bind().dialect.name == "sqlite" else "decode(repeat('00', 32), 'hex')"
    empty = "x''" if op.get_bind().dialect.name == "sqlite" else "''"
    op.execute(f"INSERT INTO tip VALUES (1, 0, -1, {zeros}, 1, 1, {INT64_MAX}, {INT64_MAX}, NULL, {empty})")  # noqa: S608


def _sqlite_triggers() -> list[str]:
    # SQLite's sum() fails beyond int64, so amounts are summed in four parts below 10^9 each and carried by hand.
    giga = 1_000_000_000
    parts = [f"atoms % {giga}", f"atoms / {giga}", f"atoms_high % {giga}", f"atoms_high / {giga}"]
    sums = [f"sum({part})" for part in parts]
    carried = sums[0]
    unbalanced = []
    for total in sums[1:]:
        unbalanced.append(f"({carried}) % {giga} <> 0")
        carried = f"{total} + ({carried}) / {giga}"
    unbalanced.append(f"{carried} <> 0")

    statements = [
        f"""CREATE TRIGGER {table}_refuse_{verb} BEFORE {verb} ON {table}
        BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"""
        for table in APPEND_ONLY
        for verb in ("update", "delete")
    ]
    for table, column, side in (
        ("command", "seq", "command"),
        ("journal", "seq", "journal"),
        ("posting", "journal_seq", "journal"),
        ("posting_batch", "journal_seq", "journal"),
    ):
        statements.append(f"""
            CREATE TRIGGER {table}_open BEFORE INSERT ON {table}
            WHEN NEW.{column} < (SELECT open_{side} FROM tip)
            BEGIN
                SELECT RAISE(ABORT, '{table} row belongs to a sealed block') FROM tip
                    WHERE NEW.{column} < next_{side};
                UPDATE tip SET open_height = height + 1, open_command = next_command, open_journal = next_journal;
            END""")  # noqa: S608
    statements.append(f"""
        CREATE TRIGGER block_check BEFORE INSERT ON block
        BEGIN
            SELECT RAISE(ABORT, 'block does not continue the chain') FROM tip
                WHERE NEW.height <> height + 1 OR NEW.previous_hash <> block_hash
                OR NEW.first_command <> next_command OR NEW.first_journal <> next_journal;
            SELECT RAISE(ABORT, 'block has no command') WHERE NEW.command_count < 1 OR NEW.journal_count < 0;
            SELECT RAISE(ABORT, 'command rows do not make this block') WHERE (
                SELECT count(*) <> NEW.command_count OR max(seq) <> NEW.first_command + NEW.command_count - 1
                    OR max(block_height) <> NEW.height OR min(block_height) <> NEW.height
                FROM command WHERE seq >= NEW.first_command);
            SELECT RAISE(ABORT, 'journal rows do not make this block') WHERE (
                SELECT count(*) <> NEW.journal_count OR count(*) > 0 AND (
                    max(seq) <> NEW.first_journal + NEW.journal_count - 1
                    OR max(block_height) <> NEW.height OR min(block_height) <> NEW.height
                    OR min(command_seq) < NEW.first_command
                    OR max(command_seq) >= NEW.first_command + NEW.command_count
                    OR NEW.first_journal + NEW.journal_count <= (SELECT max(journal_seq) FROM posting)
                    OR sum(batch_count) <> (SELECT count(*) FROM posting_batch WHERE journal_seq >= NEW.first_journal))
                FROM journal WHERE seq >= NEW.first_journal);
            SELECT RAISE(ABORT, 'posting rows without a journal transaction')
                WHERE NEW.journal_count = 0 AND (
                EXISTS (SELECT 1 FROM posting WHERE journal_seq >= NEW.first_journal)
                OR EXISTS (SELECT 1 FROM posting_batch WHERE journal_seq >= NEW.first_journal));
            SELECT RAISE(ABORT, 'posting count differs') WHERE EXISTS (
                SELECT 1 FROM journal WHERE seq >= NEW.first_journal AND (
                    (posting_count, posting_count - 1, 0) <>
                        (SELECT count(*), max(line), min(line) FROM posting WHERE journal_seq = seq)
                    OR batch_count > 0 AND (batch_count, batch_count - 1, 0) <>
                        (SELECT count(*), max(line), min(line) FROM posting_batch WHERE journal_seq = seq)));
            SELECT RAISE(ABORT, 'journal transaction out of balance') WHERE EXISTS (
                SELECT 1 FROM (
                    SELECT journal_seq, asset, atoms_high, atoms FROM posting WHERE journal_seq >= NEW.first_journal
                    UNION ALL
                    SELECT journal_seq, asset, total_high, total FROM posting_batch
                        WHERE journal_seq >= NEW.first_journal)
                GROUP BY journal_seq, asset HAVING {" OR ".join(unbalanced)});
        END""")  # noqa: S608
    statements.append(f"""
        CREATE TRIGGER block_seal AFTER INSERT ON block
        BEGIN
            UPDATE tip SET height = NEW.height, block_hash = NEW.hash,
                next_command = NEW.first_command + NEW.command_count,
                next_journal = NEW.first_journal + NEW.journal_count,
                open_height = NULL, open_command = {INT64_MAX}, open_journal = {INT64_MAX};
        END""")  # noqa: S608
    statements.append("""
        CREATE TRIGGER tip_refuse_delete BEFORE DELETE ON tip
        BEGIN SELECT RAISE(ABORT, 'the tip stays'); END""")
    statements.append("""
        CREATE TRIGGER tip_guard BEFORE UPDATE ON tip
        BEGIN
            SELECT RAISE(ABORT, 'the tip moves with a block only')
                WHERE NEW.epoch < OLD.epoch
                OR NEW.height <> OLD.height AND NEW.height IS NOT (SELECT max(height) FROM block)
                OR NEW.height = OLD.height AND (
                    NEW.block_hash <> OLD.block_hash OR NEW.next_command <> OLD.next_command
                    OR NEW.next_journal <> OLD.next_journal
                    OR OLD.open_height IS NOT NULL AND NEW.open_height IS NULL);
        END""")
    return statements


def postgresql_guards() -> list[str]:
    """Triggers and their functions; `verify-journal` holds a database against this very text."""
    definer = "LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT"
    statements = [
        f"""CREATE FUNCTION ledger_refuse_change() RETURNS trigger {definer} AS $$
        BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"""
    ]
    statements += [
        f"""CREATE TRIGGER {table}_refuse_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()"""
        for table in APPEND_ONLY
    ]
    statements.append(
        "CREATE TRIGGER tip_refuse_change BEFORE DELETE OR TRUNCATE ON tip "
        "FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse_change()"
    )
    for function, column, side in (
        ("open_with_commands", "seq", "command"),
        ("open_with_journal", "seq", "journal"),
        ("open_with_postings", "journal_seq", "journal"),
    ):
        statements.append(f"""
            CREATE FUNCTION ledger_{function}() RETURNS trigger {definer} AS $$
            DECLARE
                lowest bigint;
                head tip%ROWTYPE;
            BEGIN
                SELECT min({column}) INTO lowest FROM inserted;
                IF lowest IS NULL THEN RETURN NULL; END IF;
                SELECT * INTO head FROM tip;
                IF lowest < head.next_{side} THEN
                    RAISE EXCEPTION '% row % belongs to a sealed block', TG_TABLE_NAME, lowest;
                END IF;
                IF head.open_height IS NULL THEN
                    UPDATE tip SET open_height = height + 1, open_command = next_command, open_journal = next_journal;
                END IF;
                RETURN NULL;
            END $$""")  # noqa: S608
    for table, function in (
        ("command", "open_with_commands"),
        ("journal", "open_with_journal"),
        ("posting", "open_with_postings"),
        ("posting_batch", "open_with_postings"),
    ):
        statements.append(f"""
            CREATE TRIGGER {table}_open AFTER INSERT ON {table} REFERENCING NEW TABLE AS inserted
            FOR EACH STATEMENT EXECUTE FUNCTION ledger_{function}()""")
    # The planner must see each block's own numbers: a generic plan would read the whole of a large table.
    statements.append(f"""
        CREATE FUNCTION ledger_check_block() RETURNS trigger {definer}
            SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
        DECLARE
            head tip%ROWTYPE;
            held record;
            last_posting bigint;
            batches bigint;
        BEGIN
            SELECT * INTO head FROM tip FOR UPDATE;
            IF NEW.height <> head.height + 1 OR NEW.previous_hash <> head.block_hash
                OR NEW.first_command <> head.next_command OR NEW.first_journal <> head.next_journal THEN
                RAISE EXCEPTION 'block % does not continue the chain at %', NEW.height, head.height;
            END IF;
            IF NEW.command_count < 1 OR NEW.journal_count < 0 THEN
                RAISE EXCEPTION 'block % has no command', NEW.height;
            END IF;
            SELECT count(*) AS n, max(seq) AS last, min(block_height) AS low, max(block_height) AS high INTO held
                FROM command WHERE seq >= NEW.first_command;
            IF held.n <> NEW.command_count OR held.last <> NEW.first_command + NEW.command_count - 1
                OR held.low <> NEW.height OR held.high <> NEW.height THEN
                RAISE EXCEPTION 'command rows do not make block %', NEW.height;
            END IF;
            SELECT count(*) AS n, max(seq) AS last, min(block_height) AS low, max(block_height) AS high,
                min(command_seq) AS first_command, max(command_seq) AS last_command,
                coalesce(sum(batch_count), 0) AS batches INTO held
                FROM journal WHERE seq >= NEW.first_journal;
            SELECT max(journal_seq) INTO last_posting FROM posting;
            SELECT count(*) INTO batches FROM posting_batch WHERE journal_seq >= NEW.first_journal;
            IF held.n <> NEW.journal_count OR held.last <> NEW.first_journal + NEW.journal_count - 1
                OR held.low <> NEW.height OR held.high <> NEW.height
                OR held.first_command < NEW.first_command
                OR held.last_command >= NEW.first_command + NEW.command_count
                OR last_posting >= NEW.first_journal + NEW.journal_count OR held.batches <> batches THEN
                RAISE EXCEPTION 'journal rows do not make block %', NEW.height;
            END IF;
            SELECT seq INTO held FROM journal LEFT JOIN (
                    SELECT journal_seq, count(*) AS n, max(line) AS high, min(line) AS low FROM posting
                    WHERE journal_seq >= NEW.first_journal GROUP BY journal_seq
                ) AS legs ON legs.journal_seq = seq
                WHERE seq >= NEW.first_journal AND (
                    posting_count <> coalesce(n, 0) OR n > 0 AND (high <> n - 1 OR low <> 0)
                    OR batch_count > 0 AND EXISTS (
                        SELECT 1 FROM posting_batch WHERE posting_batch.journal_seq = seq
                        HAVING count(*) <> batch_count OR max(line) <> batch_count - 1 OR min(line) <> 0))
                LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'posting count of journal transaction % differs', held.seq;
            END IF;
            SELECT journal_seq, asset INTO held FROM (
                    SELECT journal_seq, asset, atoms_high, atoms FROM posting WHERE journal_seq >= NEW.first_journal
                    UNION ALL
                    SELECT journal_seq, asset, total_high, total FROM posting_batch
                        WHERE journal_seq >= NEW.first_journal) AS legs
                GROUP BY journal_seq, asset
                HAVING sum(atoms_high) * 1000000000000000000 + sum(atoms) <> 0 LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'journal transaction % is out of balance in asset %', held.journal_seq, held.asset;
            END IF;
            RETURN NEW;
        END $$""")  # noqa: S608
    statements.append("""
        CREATE TRIGGER block_check BEFORE INSERT ON block FOR EACH ROW EXECUTE FUNCTION ledger_check_block()""")
    statements.append(f"""
        CREATE FUNCTION ledger_seal_block() RETURNS trigger {definer} AS $$
        BEGIN
            UPDATE tip SET height = NEW.height, block_hash = NEW.hash,
                next_command = NEW.first_command + NEW.command_count,
                next_journal = NEW.first_journal + NEW.journal_count,
                open_height = NULL, open_command = {INT64_MAX}, open_journal = {INT64_MAX};
            RETURN NULL;
        END $$""")  # noqa: S608
    statements.append("""
        CREATE TRIGGER block_seal AFTER INSERT ON block FOR EACH ROW EXECUTE FUNCTION ledger_seal_block()""")
    statements.append(f"""
        CREATE FUNCTION ledger_guard_tip() RETURNS trigger {definer} AS $$
        BEGIN
            IF NEW.epoch < OLD.epoch
                OR NEW.height <> OLD.height AND NEW.height IS DISTINCT FROM (SELECT max(height) FROM block)
                OR NEW.height = OLD.height AND (
                    NEW.block_hash <> OLD.block_hash OR NEW.next_command <> OLD.next_command
                    OR NEW.next_journal <> OLD.next_journal
                    OR OLD.open_height IS NOT NULL AND NEW.open_height IS NULL) THEN
                RAISE EXCEPTION 'the tip moves with a block only';
            END IF;
            RETURN NEW;
        END $$""")  # noqa: S608
    statements.append("""
        CREATE TRIGGER tip_guard BEFORE UPDATE ON tip FOR EACH ROW EXECUTE FUNCTION ledger_guard_tip()""")
    return statements
