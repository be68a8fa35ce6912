-- Events that were written in a transaction and are not published yet. All times are microseconds since the Unix epoch.
CREATE TABLE tidings_outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    state        INTEGER NOT NULL DEFAULT 0, -- 0 ready, 1 scheduled, 2 waits behind a failed one of its key, 3 is tried again, 4 failed, 5 processed
    part         INTEGER NOT NULL,           -- hash of the ordering key, 0 to 255: one relay at a time has it
    event_id     TEXT    NOT NULL UNIQUE,
    routing_key  TEXT    NOT NULL,
    exchange     TEXT,                       -- NULL: the relay's
    ordering_key TEXT,
    tenant       TEXT    NOT NULL DEFAULT '',
    headers      BLOB,                       -- JSON; NULL: none
    body         BLOB    NOT NULL,           -- the JSON object that is published
    created_at   INTEGER NOT NULL,
    available_at INTEGER,                    -- states 1 and 3: not published before
    attempts     INTEGER NOT NULL DEFAULT 0,
    last_error   TEXT,
    processed_at INTEGER                     -- state 3: when it was last tried
) STRICT;
CREATE INDEX tidings_outbox_ready_index ON tidings_outbox (id) WHERE state = 0;
CREATE INDEX tidings_outbox_due_index ON tidings_outbox (state, available_at) WHERE state IN (1, 3);
CREATE INDEX tidings_outbox_key_index ON tidings_outbox (ordering_key, state) WHERE state IN (2, 3, 4);
CREATE INDEX tidings_outbox_processed_index ON tidings_outbox (processed_at) WHERE state = 5;

-- Relays that live. A row is removed when its time has passed and its connection to the broker is known to be gone.
CREATE TABLE tidings_outbox_relay (
    owner      TEXT    PRIMARY KEY,
    fence      TEXT    NOT NULL, -- the transport that fences what it publishes, or ''
    until      INTEGER NOT NULL,
    started_at INTEGER NOT NULL  -- when the lease began; it ends at until
) STRICT;

-- Which relay has which part of the keys.
CREATE TABLE tidings_outbox_part (
    part  INTEGER PRIMARY KEY,
    owner TEXT
) STRICT;
INSERT INTO tidings_outbox_part (part)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 255) SELECT i FROM n;

-- What people look at.
CREATE VIEW tidings_outbox_status AS
SELECT id,
       CASE state WHEN 4 THEN 'FAILED' WHEN 5 THEN 'PROCESSED' ELSE 'PENDING' END AS status,
       event_id, routing_key, ordering_key, tenant, attempts, last_error,
       datetime(created_at / 1000000, 'unixepoch') AS created_at,
       datetime(available_at / 1000000, 'unixepoch') AS available_at,
       CASE state WHEN 5 THEN datetime(processed_at / 1000000, 'unixepoch') END AS processed_at,
       length(body) AS bytes
FROM tidings_outbox;
