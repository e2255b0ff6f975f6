-- What became of the spans that each consumer's cursor has passed, by the hour in which they were received (counted from 1970; 0: all
-- that is older than a week) and their project. Written in the transaction that moves the cursor: for each consumer of each log,
-- the sum of spans is pos - origin.
CREATE TABLE emberd.ledger (
    consumer text NOT NULL,
    writer text NOT NULL,
    hour bigint NOT NULL,
    project text NOT NULL,
    fate text NOT NULL CHECK (fate IN ('done', 'duplicate', 'quarantined', 'shed', 'lost')),
    reason text NOT NULL,
    spans bigint NOT NULL,
    PRIMARY KEY (consumer, writer, hour, project, fate, reason)
) WITH (fillfactor = 50);

-- Where each cursor began. What was recorded before there was a ledger is not in it.
CREATE TABLE emberd.origins (
    consumer text NOT NULL,
    writer text NOT NULL,
    origin bigint NOT NULL,
    PRIMARY KEY (consumer, writer)
);
INSERT INTO emberd.origins (consumer, writer, origin) SELECT consumer, writer, pos FROM emberd.cursors;

-- Quarantined items that were recorded or dropped after all, until their files are gone: none may be booked twice.
CREATE TABLE emberd.released (
    consumer text NOT NULL,
    writer text NOT NULL,
    item text NOT NULL,
    PRIMARY KEY (consumer, writer, item)
);
