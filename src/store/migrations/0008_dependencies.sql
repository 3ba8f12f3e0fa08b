-- What revisions ask to have installed, by the hash of what was asked for.
CREATE TABLE dependencies (
    hash       TEXT PRIMARY KEY NOT NULL,
    -- building, ready or failed.
    status     TEXT NOT NULL,
    -- The end of the log of an installation that failed.
    error      TEXT,
    updated_at BIGINT NOT NULL
) WITHOUT ROWID;

ALTER TABLE revisions ADD COLUMN deps TEXT;
CREATE INDEX revisions_deps ON revisions (deps) WHERE deps IS NOT NULL;
