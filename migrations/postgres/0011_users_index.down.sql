DO $$
BEGIN
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'table profiles') THEN
        DROP INDEX public.idx_profiles_id;
    END IF;
END
$$;
