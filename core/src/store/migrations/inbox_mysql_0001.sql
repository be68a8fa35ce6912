-- The events that a subscription has processed. Times are microseconds since the Unix epoch.
CREATE TABLE tidings_inbox (
    tenant       varbinary(255) NOT NULL DEFAULT '',
    subscription varbinary(200) NOT NULL,
    dedup_key    varbinary(255) NOT NULL,
    processed_at bigint         NOT NULL,
    PRIMARY KEY (tenant, subscription, dedup_key),
    KEY tidings_inbox_age_index (processed_at)
) ENGINE = InnoDB;
