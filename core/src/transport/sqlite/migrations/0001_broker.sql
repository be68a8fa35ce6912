-- The broker's tables. All times are microseconds on the store's clock (see tidings_clock), which never goes back.

-- The store's clock is the host's boot-time clock plus this offset. The first process after a boot sets it anew.
CREATE TABLE tidings_clock (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id TEXT    NOT NULL,
    offset  INTEGER NOT NULL,
    latest  INTEGER NOT NULL -- a time that has been: after a boot the clock goes on from here at the earliest
) STRICT;

-- Grows with every change of subscriptions and bindings; processes compare it before they trust what they remember.
CREATE TABLE tidings_binding_version (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL
) STRICT;
INSERT INTO tidings_binding_version (one, version) VALUES (1, 1);

CREATE TABLE tidings_subscription (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    name     TEXT UNIQUE,      -- NULL: deleted, its rows are being removed
    exchange TEXT    NOT NULL,
    ordered  INTEGER NOT NULL, -- 1: events of a key one at a time, in order
    on_retry TEXT,             -- wait | pass
    on_dead  TEXT              -- park | skip
) STRICT;

CREATE TABLE tidings_binding (
    subscription INTEGER NOT NULL,
    binding_key  TEXT    NOT NULL,
    PRIMARY KEY (subscription, binding_key)
) STRICT, WITHOUT ROWID;

-- An event, once, however many subscriptions want it. The id is the time of its acceptance, made unique.
CREATE TABLE tidings_event (
    id          INTEGER PRIMARY KEY,
    refs        INTEGER NOT NULL, -- rows of delivery, ordered and dead that need it
    settled     INTEGER,          -- when the last of them went, if events are retained
    timestamp   INTEGER NOT NULL,
    exchange    TEXT    NOT NULL,
    routing_key TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,
    key         TEXT,
    headers     TEXT,             -- JSON; NULL: none
    body        BLOB    NOT NULL
) STRICT;
CREATE INDEX tidings_event_settled ON tidings_event (settled) WHERE settled IS NOT NULL;

-- What waits for, or is held by, a consumer and has no order. One tree serves everything: the head of (subscription,
-- owner 0) is claimed next, (subscription, owner n) is what a dead owner leaves behind. Owners sort before 0, so that
-- new events are appended behind all others.
CREATE TABLE tidings_delivery (
    subscription INTEGER NOT NULL,
    owner        INTEGER NOT NULL, -- 0: nobody
    ready        INTEGER NOT NULL,
    event        INTEGER NOT NULL,
    lost         INTEGER NOT NULL, -- deliveries that ended without an outcome
    headers      TEXT,             -- NULL: the event's
    PRIMARY KEY (subscription, owner DESC, ready, event)
) STRICT, WITHOUT ROWID;

-- What waits in the order of its key. Who may have it is said by the row of the key alone.
CREATE TABLE tidings_ordered (
    subscription INTEGER NOT NULL,
    key          TEXT    NOT NULL,
    event        INTEGER NOT NULL,
    due          INTEGER NOT NULL, -- 0: at once; the largest integer: parked until it is replayed or discarded
    lost         INTEGER NOT NULL,
    headers      TEXT,
    PRIMARY KEY (subscription, key, event)
) STRICT, WITHOUT ROWID;

-- One row for each key with rows in tidings_ordered.
CREATE TABLE tidings_key (
    subscription INTEGER NOT NULL,
    key          TEXT    NOT NULL,
    owner        INTEGER NOT NULL, -- 0: nobody
    ready        INTEGER NOT NULL, -- owner 0: when it may be claimed; else: when it was
    upto         INTEGER NOT NULL, -- last event that was handed to the owner
    PRIMARY KEY (subscription, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tidings_key_ready ON tidings_key (subscription, owner, ready);

-- Whoever holds deliveries: one row for each source and lease, so that renewing is one update. Ids are never used twice.
CREATE TABLE tidings_owner (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription INTEGER NOT NULL,
    until        INTEGER NOT NULL
) STRICT;

-- Given up on. A parked one is a copy: the event itself is the head of its key in tidings_ordered.
CREATE TABLE tidings_dead (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription INTEGER NOT NULL,
    event        INTEGER NOT NULL,
    parked       INTEGER NOT NULL,
    headers      TEXT
) STRICT;
CREATE INDEX tidings_dead_subscription ON tidings_dead (subscription, id);

-- Published for later: routed when due, to the subscriptions of that moment.
CREATE TABLE tidings_scheduled (
    id          INTEGER PRIMARY KEY,
    due         INTEGER NOT NULL,
    timestamp   INTEGER NOT NULL,
    exchange    TEXT    NOT NULL,
    routing_key TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,
    key         TEXT,
    headers     TEXT,
    body        BLOB    NOT NULL
) STRICT;
CREATE INDEX tidings_scheduled_due ON tidings_scheduled (due);
