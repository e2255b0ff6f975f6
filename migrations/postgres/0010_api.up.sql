-- What the API keeps between requests, for all emberds on this database. Times are microseconds since 1970.

-- The key that the cursors of lists are signed with. Whoever can read it here can read the lists.
CREATE TABLE emberd.secrets (
    name text PRIMARY KEY,
    secret bytea NOT NULL
);
INSERT INTO emberd.secrets (name, secret)
VALUES ('cursors', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- What was made under which idempotency key, and of which body.
CREATE TABLE emberd.asked (
    creator uuid NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    -- SHA-256 of what was sent
    digest bytea NOT NULL,
    made uuid NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (creator, operation, key)
);
CREATE INDEX asked_at ON emberd.asked (at);
