-- Least privilege for PostgreSQL: run once as the owner of the schema, after the migrations; run again after an upgrade.
--
-- The owner migrates and is used for nothing else. `satchel_writer` is what `satchel serve` connects as: it adds to the
-- log and can neither change nor remove what is there, nor switch the triggers off. `satchel_reader` reads.
-- Give each a login:  CREATE ROLE node LOGIN PASSWORD '…' IN ROLE satchel_writer;

DO $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'satchel_writer') THEN
        CREATE ROLE satchel_writer NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'satchel_reader') THEN
        CREATE ROLE satchel_reader NOLOGIN;
    END IF;
END $$;

-- Stores beside the log (chain_…, por_…, snapshots) are not append-only.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO satchel_writer;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO satchel_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO satchel_reader;

REVOKE ALL ON command, journal, posting, posting_batch, block, tip FROM satchel_writer;
GRANT SELECT, INSERT ON command, journal, posting, posting_batch, block TO satchel_writer;
GRANT SELECT ON tip TO satchel_writer;

-- The triggers move the tip with their owner's rights; the writer only takes the lease and notes the block log's tree.
GRANT UPDATE (epoch, log_peaks) ON tip TO satchel_writer;
