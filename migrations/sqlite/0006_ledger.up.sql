-- What became of the spans that each consumer's cursor has passed, by the hour in which they were received (counted from 1970; 0: all
-- that is older than a week) and their project. Written in the transaction that moves the cursor: for each consumer of each log,
-- the sum of spans is pos - origin.
CREATE TABLE emberd_ledger (
    consumer TEXT NOT NULL,
    writer TEXT NOT NULL,
    hour INTEGER NOT NULL,
    project TEXT NOT NULL,
    fate TEXT NOT NULL CHECK (fate IN ('done', 'duplicate', 'quarantined', 'shed', 'lost')),
    reason TEXT NOT NULL,
    spans INTEGER NOT NULL,
    PRIMARY KEY (consumer, writer, hour, project, fate, reason)
) STRICT, WITHOUT ROWID;

-- Where each cursor began. What was recorded before there was a ledger is not in it.
CREATE TABLE emberd_origins (
    consumer TEXT NOT NULL,
    writer TEXT NOT NULL,
    origin INTEGER NOT NULL,
    PRIMARY KEY (consumer, writer)
) STRICT, WITHOUT ROWID;
INSERT INTO emberd_origins (consumer, writer, origin) SELECT consumer, writer, pos FROM emberd_cursors;

-- Quarantined items that were recorded or dropped after all, until their files are gone: none may be booked twice.
CREATE TABLE emberd_released (
    consumer TEXT NOT NULL,
    writer TEXT NOT NULL,
    item TEXT NOT NULL,
    PRIMARY KEY (consumer, writer, item)
) STRICT, WITHOUT ROWID;
