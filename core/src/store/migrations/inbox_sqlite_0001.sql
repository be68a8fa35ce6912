-- The events that a subscription has processed. Times are microseconds since the Unix epoch.
CREATE TABLE tidings_inbox (
    tenant       TEXT    NOT NULL DEFAULT '',
    subscription TEXT    NOT NULL,
    dedup_key    TEXT    NOT NULL,
    processed_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, subscription, dedup_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX tidings_inbox_age_index ON tidings_inbox (processed_at);
