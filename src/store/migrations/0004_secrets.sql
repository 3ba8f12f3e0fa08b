-- What agents keep secret, encrypted; which key has done it is named, the key itself is not here.
CREATE TABLE secrets (
    agent_id TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    key      TEXT NOT NULL,
    -- Counts the values of this key, from 1: part of what the value is bound to.
    version  BIGINT NOT NULL,
    key_id   TEXT NOT NULL,
    nonce    BLOB NOT NULL,
    sealed   BLOB NOT NULL,
    set_at   BIGINT NOT NULL,
    PRIMARY KEY (agent_id, key)
) WITHOUT ROWID;
