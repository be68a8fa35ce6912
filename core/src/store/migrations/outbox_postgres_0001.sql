-- Events that were written in a transaction and are not published yet. All times are microseconds since the Unix epoch.
CREATE TABLE tidings_outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY,
    state        smallint NOT NULL DEFAULT 0, -- 0 ready, 1 scheduled, 2 waits behind a failed one of its key, 3 is tried again, 4 failed, 5 processed
    part         smallint NOT NULL,           -- hash of the ordering key, 0 to 255: one relay at a time has it
    event_id     text     NOT NULL,
    routing_key  text     NOT NULL,
    exchange     text,                        -- NULL: the relay's
    ordering_key text,
    tenant       text     NOT NULL DEFAULT '',
    headers      bytea,                       -- JSON; NULL: none
    body         bytea    NOT NULL,           -- the JSON object that is published
    created_at   bigint   NOT NULL,
    available_at bigint,                      -- states 1 and 3: not published before
    attempts     integer  NOT NULL DEFAULT 0,
    last_error   text,
    processed_at bigint,                      -- state 3: when it was last tried
    PRIMARY KEY (state, id),
    UNIQUE (event_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
-- Rows that are ready are in none of these, so that writing one costs two indexes.
CREATE INDEX ON tidings_outbox (state, available_at) WHERE state IN (1, 3);
CREATE INDEX ON tidings_outbox (ordering_key, state) WHERE state IN (2, 3, 4);
CREATE INDEX ON tidings_outbox (processed_at) WHERE state = 5;

-- Relays that live. A row is removed when its time has passed and its connection to the broker is known to be gone.
CREATE TABLE tidings_outbox_relay (
    owner      text   PRIMARY KEY,
    fence      text   NOT NULL, -- the transport that fences what it publishes, or ''
    until      bigint NOT NULL,
    started_at bigint NOT NULL  -- when the lease began; it ends at until
);

-- Which relay has which part of the keys.
CREATE TABLE tidings_outbox_part (
    part  smallint PRIMARY KEY,
    owner text
);
INSERT INTO tidings_outbox_part (part) SELECT generate_series(0, 255);

-- What people look at.
CREATE VIEW tidings_outbox_status AS
SELECT id,
       CASE state WHEN 4 THEN 'FAILED' WHEN 5 THEN 'PROCESSED' ELSE 'PENDING' END AS status,
       event_id, routing_key, ordering_key, tenant, attempts, last_error,
       to_timestamp(created_at / 1000000.0) AS created_at,
       to_timestamp(available_at / 1000000.0) AS available_at,
       CASE state WHEN 5 THEN to_timestamp(processed_at / 1000000.0) END AS processed_at,
       octet_length(body) AS bytes
FROM tidings_outbox;
