-- Keys with a time to live: caches of publishers, idempotency keys. Times are those of the store's clock.
CREATE TABLE tidings_remembered (
    key   TEXT    PRIMARY KEY,
    scope TEXT    NOT NULL, -- what keys belong to, for counting
    value TEXT    NOT NULL,
    until INTEGER NOT NULL,
    looks INTEGER NOT NULL  -- how often somebody came again
) STRICT, WITHOUT ROWID;
CREATE INDEX tidings_remembered_until ON tidings_remembered (until);
CREATE INDEX tidings_remembered_scope ON tidings_remembered (scope);
