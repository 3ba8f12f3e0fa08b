-- What was decided about the network of sessions.
CREATE TABLE egress (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at         BIGINT NOT NULL,
    allowed    BOOLEAN NOT NULL,
    host       TEXT NOT NULL,
    port       BIGINT,
    sent       BIGINT NOT NULL DEFAULT 0,
    received   BIGINT NOT NULL DEFAULT 0,
    reason     TEXT
);
CREATE INDEX egress_session ON egress (session_id, seq);
