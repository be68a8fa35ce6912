-- Events that were written in a transaction and are not published yet. All times are microseconds since the Unix epoch.
-- Ids and keys are binary: the collations of text make `a`, `A` and `a ` equal.
CREATE TABLE tidings_outbox (
    id           bigint          NOT NULL AUTO_INCREMENT,
    state        tinyint         NOT NULL DEFAULT 0, -- 0 ready, 1 scheduled, 2 waits behind a failed one of its key, 3 is tried again, 4 failed, 5 processed
    part         smallint        NOT NULL,           -- hash of the ordering key, 0 to 255: one relay at a time has it
    event_id     varbinary(255)  NOT NULL,
    routing_key  varbinary(255)  NOT NULL,
    exchange     varbinary(255),                     -- NULL: the relay's
    ordering_key varbinary(255),
    tenant       varbinary(255)  NOT NULL DEFAULT '',
    headers      mediumblob,                         -- JSON; NULL: none
    body         longblob        NOT NULL,           -- the JSON object that is published
    created_at   bigint          NOT NULL,
    available_at bigint,                             -- states 1 and 3: not published before
    attempts     int             NOT NULL DEFAULT 0,
    last_error   varbinary(2048),
    processed_at bigint,                             -- state 3: when it was last tried
    PRIMARY KEY (id),
    UNIQUE KEY tidings_outbox_event_index (event_id),
    KEY tidings_outbox_due_index (state, available_at, id),
    KEY tidings_outbox_key_index (ordering_key, state)
) ENGINE = InnoDB;

-- Relays that live. A row is removed when its time has passed and its connection to the broker is known to be gone.
CREATE TABLE tidings_outbox_relay (
    owner      varbinary(64) PRIMARY KEY,
    fence      varbinary(64) NOT NULL, -- the transport that fences what it publishes, or ''
    until      bigint        NOT NULL,
    started_at bigint        NOT NULL  -- when the lease began; it ends at until
) ENGINE = InnoDB;

-- Which relay has which part of the keys.
CREATE TABLE tidings_outbox_part (
    part  smallint PRIMARY KEY,
    owner varbinary(64)
) ENGINE = InnoDB;
INSERT INTO tidings_outbox_part (part)
WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 255) SELECT i FROM n;

-- What `serialize` locks until the transaction ends.
CREATE TABLE tidings_outbox_lock (
    slot smallint PRIMARY KEY
) ENGINE = InnoDB;
INSERT INTO tidings_outbox_lock (slot)
WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 255) SELECT i FROM n;

-- What people look at.
CREATE VIEW tidings_outbox_status AS
SELECT id,
       CASE state WHEN 4 THEN 'FAILED' WHEN 5 THEN 'PROCESSED' ELSE 'PENDING' END AS status,
       CONVERT(event_id USING utf8mb4) AS event_id,
       CONVERT(routing_key USING utf8mb4) AS routing_key,
       CONVERT(ordering_key USING utf8mb4) AS ordering_key,
       CONVERT(tenant USING utf8mb4) AS tenant,
       attempts,
       CONVERT(last_error USING utf8mb4) AS last_error,
       created_at, available_at, CASE state WHEN 5 THEN processed_at END AS processed_at,
       octet_length(body) AS bytes
FROM tidings_outbox;
