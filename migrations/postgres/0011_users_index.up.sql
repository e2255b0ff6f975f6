-- A profile is read by its id whenever a token names a user: from an index alone, as it is by its address already. In another's table
-- nothing is made: docs/caches.md has the statement for its owner.

DO $$
BEGIN
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'table profiles') THEN
        CREATE INDEX idx_profiles_id ON public.profiles (id) INCLUDE (email, name, role, department);
    END IF;
END
$$;
