-- What the API keeps between requests. Times are microseconds since 1970.

-- The key that the cursors of lists are signed with. Whoever can read it here can read the lists.
CREATE TABLE emberd_secrets (
    name TEXT NOT NULL PRIMARY KEY,
    secret BLOB NOT NULL
) STRICT;
INSERT INTO emberd_secrets (name, secret) VALUES ('cursors', randomblob(32));

-- What was made under which idempotency key, and of which body.
CREATE TABLE emberd_asked (
    creator TEXT NOT NULL,
    operation TEXT NOT NULL,
    key TEXT NOT NULL,
    -- SHA-256 of what was sent
    digest BLOB NOT NULL,
    made TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (creator, operation, key)
) STRICT;
CREATE INDEX emberd_asked_at ON emberd_asked (at);
