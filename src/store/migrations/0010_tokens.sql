-- What opens the server to those who come over the network: never the text itself, only its SHA-256.
CREATE TABLE tokens (
    -- `tok_` and the first 16 hex digits of the hash, by which a token is found.
    id           TEXT NOT NULL PRIMARY KEY,
    hash         BLOB NOT NULL,
    name         TEXT NOT NULL UNIQUE,
    scope        TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
) WITHOUT ROWID;
