-- Passwords of those who log in at emberd, and tokens that count no more. Times are microseconds since 1970.

CREATE TABLE emberd_passwords (
    profile TEXT NOT NULL PRIMARY KEY REFERENCES profiles (id) ON DELETE CASCADE,
    -- argon2id in PHC form, or bcrypt
    hash TEXT NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT;

CREATE TABLE emberd_revoked (
    -- SHA-256 of the token
    digest BLOB NOT NULL PRIMARY KEY,
    -- when the token ends by itself
    until INTEGER NOT NULL
) STRICT;
CREATE INDEX emberd_revoked_until ON emberd_revoked (until);
