-- Passwords of those who log in at emberd, and tokens that count no more. Times are microseconds since 1970.

CREATE TABLE emberd.passwords (
    profile uuid PRIMARY KEY REFERENCES public.profiles (id) ON DELETE CASCADE,
    -- argon2id in PHC form, or bcrypt
    hash text NOT NULL,
    changed_at bigint NOT NULL
);

CREATE TABLE emberd.revoked (
    -- SHA-256 of the token
    digest bytea NOT NULL PRIMARY KEY,
    -- when the token ends by itself
    until bigint NOT NULL
);
CREATE INDEX revoked_until ON emberd.revoked (until);

-- What is asked for a user runs under the role that policies are made for: emberd must be able to take it.
DO $$
BEGIN
    IF to_regrole('authenticated') IS NOT NULL AND NOT pg_has_role(current_user, 'authenticated', 'MEMBER') THEN
        EXECUTE format('GRANT authenticated TO %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'no right to act as the role authenticated: users'' rights stand in emberd''s statements alone';
END
$$;
