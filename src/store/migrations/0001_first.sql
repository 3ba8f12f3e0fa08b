-- Times are milliseconds since the Unix epoch.

CREATE TABLE agents (
    id         TEXT PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL,
    revision   BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- A deleted agent stays as long as sessions name it.
    deleted_at BIGINT
);
CREATE UNIQUE INDEX agents_name ON agents (name) WHERE deleted_at IS NULL;

CREATE TABLE revisions (
    agent_id    TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    revision    BIGINT NOT NULL,
    command     TEXT NOT NULL,
    config      TEXT NOT NULL,
    source_hash TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (agent_id, revision)
);

CREATE TABLE sessions (
    -- The slot that gives a session its uid: AUTOINCREMENT, so that none is ever used again.
    seq                  INTEGER PRIMARY KEY AUTOINCREMENT,
    id                   TEXT NOT NULL UNIQUE,
    agent_id             TEXT NOT NULL REFERENCES agents (id),
    revision             BIGINT NOT NULL,
    status               TEXT NOT NULL,
    title                TEXT,
    message_count        BIGINT NOT NULL DEFAULT 0,
    created_at           BIGINT NOT NULL,
    last_activity_at     BIGINT,
    -- last_activity_at, or created_at as long as there is none: what lists are ordered by.
    activity_at          BIGINT NOT NULL,
    idle_timeout_seconds BIGINT NOT NULL,
    -- Why it is being ended, from the decision until its workspace is wiped.
    ending               TEXT,
    ended_at             BIGINT,
    end_reason           TEXT,
    error                TEXT,
    isolation            TEXT
);
CREATE INDEX sessions_activity ON sessions (activity_at DESC, id);
CREATE INDEX sessions_created ON sessions (created_at, id);
CREATE INDEX sessions_agent_activity ON sessions (agent_id, activity_at DESC, id);
CREATE INDEX sessions_agent_created ON sessions (agent_id, created_at, id);
CREATE INDEX sessions_status_activity ON sessions (status, activity_at DESC, id);
CREATE INDEX sessions_status_created ON sessions (status, created_at, id);
CREATE INDEX sessions_ending ON sessions (id) WHERE ending IS NOT NULL;

CREATE TABLE runs (
    id         TEXT PRIMARY KEY NOT NULL,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- Counts the session's messages, from 1.
    turn       BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at   BIGINT,
    -- completed, failed or cancelled.
    outcome    TEXT
);
CREATE UNIQUE INDEX runs_session ON runs (session_id, turn);
CREATE INDEX runs_open ON runs (session_id) WHERE ended_at IS NULL;

CREATE TABLE events (
    run_id TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    event  TEXT NOT NULL,
    PRIMARY KEY (run_id, number)
) WITHOUT ROWID;

CREATE TABLE messages (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    run_id     TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    content    TEXT NOT NULL,
    at         BIGINT NOT NULL,
    partial    BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX messages_session ON messages (session_id, seq);
CREATE INDEX messages_run ON messages (run_id);
