-- Takes away what the way up made, and of another's tables only the reserved row.

DELETE FROM public.prompts WHERE id = '00000000-0000-0000-0000-000000000000';
DROP FUNCTION emberd.reserve_prompt();
DROP FUNCTION emberd.allow(text);

DO $$
BEGIN
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'table prompts') THEN
        DROP TABLE public.prompts;
    END IF;
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'table profiles') THEN
        DROP TABLE public.profiles;
    END IF;
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'index idx_profiles_email') THEN
        DROP INDEX public.idx_profiles_email;
    END IF;
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'function auth.uid') THEN
        DROP FUNCTION auth.uid();
    END IF;
    IF EXISTS (SELECT FROM emberd.made WHERE name = 'schema auth') THEN
        DROP SCHEMA auth;
    END IF;
END
$$;

DROP TABLE emberd.made;
