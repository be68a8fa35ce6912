-- The events that a subscription has processed. Times are microseconds since the Unix epoch.
CREATE TABLE tidings_inbox (
    tenant       text   NOT NULL DEFAULT '',
    subscription text   NOT NULL,
    dedup_key    text   NOT NULL,
    processed_at bigint NOT NULL,
    PRIMARY KEY (tenant, subscription, dedup_key)
);
CREATE INDEX ON tidings_inbox (processed_at);
