-- What the prompt library has and emberd needs: prompts, profiles, auth.uid(), the role authenticated.
-- On Supabase they are there already and are left alone. What is made here is written down in emberd.made, so that the way down
-- takes away just that. The schema emberd itself is made before this step.

CREATE TABLE emberd.made (name text PRIMARY KEY);

-- A role belongs to the server, not to this database: it is never dropped, for others may have come to use it.
DO $$
BEGIN
    IF to_regrole('authenticated') IS NULL THEN
        CREATE ROLE authenticated NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'no right to create the role authenticated: policies will hold for every role, and nothing is granted';
END
$$;

-- Grants to the role authenticated, if there is one.
CREATE FUNCTION emberd.allow(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('authenticated') IS NOT NULL THEN
        EXECUTE format('GRANT %s TO authenticated', what);
    END IF;
END
$$;

DO $$
BEGIN
    IF to_regnamespace('auth') IS NULL THEN
        CREATE SCHEMA auth;
        PERFORM emberd.allow('USAGE ON SCHEMA auth');
        INSERT INTO emberd.made VALUES ('schema auth');
    END IF;

    IF to_regprocedure('auth.uid()') IS NULL THEN
        CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
        $uid$ SELECT nullif(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub', '')::uuid $uid$;
        INSERT INTO emberd.made VALUES ('function auth.uid');
    END IF;

    IF to_regclass('public.profiles') IS NULL THEN
        CREATE TABLE public.profiles (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            email text NOT NULL CHECK (char_length(email) BETWEEN 1 AND 320),
            name text,
            role text NOT NULL DEFAULT 'member',
            department text
        );
        CREATE UNIQUE INDEX idx_profiles_email ON public.profiles (email) INCLUDE (id, name, role, department);
        INSERT INTO emberd.made VALUES ('table profiles');
        -- Whoever calls where no identity is configured.
        INSERT INTO public.profiles (id, email, name, role)
        VALUES ('00000000-0000-0000-0000-000000000000', 'local@localhost', 'local administrator', 'admin');
    ELSIF NOT EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = 'public.profiles'::regclass AND a.attname = 'email'
    ) THEN
        -- Spans and logins name users by email.
        CREATE INDEX idx_profiles_email ON public.profiles (email);
        INSERT INTO emberd.made VALUES ('index idx_profiles_email');
    END IF;

    IF to_regclass('public.prompts') IS NULL THEN
        CREATE TABLE public.prompts (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 500),
            content text NOT NULL DEFAULT '',
            created_by uuid REFERENCES public.profiles (id) ON DELETE SET NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX idx_prompts_title ON public.prompts (title, created_at, id);
        CREATE INDEX idx_prompts_created_at ON public.prompts (created_at DESC, id DESC);
        -- The summary is read with the reader's rights, and names prompts.
        PERFORM emberd.allow('SELECT ON public.prompts');
        INSERT INTO emberd.made VALUES ('table prompts');
    END IF;
END
$$;

-- Makes the reserved prompt that traces belong to while they name none that exists. Another's table of prompts may demand more than
-- an id and a title: such columns get the emptiest value of their type, or the first row that they may refer to.
CREATE FUNCTION emberd.reserve_prompt() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    needed record;
    columns text := 'id, title';
    empties text := quote_literal('00000000-0000-0000-0000-000000000000') || ', ' || quote_literal('unassigned');
BEGIN
    FOR needed IN
        SELECT a.attname, a.atttypid::regtype AS type, t.typcategory, f.confrelid::regclass AS parent, k.attname AS parent_key
        FROM pg_attribute a
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_constraint f ON f.conrelid = a.attrelid AND f.contype = 'f' AND f.conkey = ARRAY[a.attnum]
        LEFT JOIN pg_attribute k ON k.attrelid = f.confrelid AND k.attnum = f.confkey[1]
        WHERE a.attrelid = 'public.prompts'::regclass AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
            AND NOT a.atthasdef AND a.attidentity = '' AND a.attname NOT IN ('id', 'title')
    LOOP
        columns := columns || ', ' || quote_ident(needed.attname);
        empties := empties || ', ' || CASE
            WHEN needed.parent IS NOT NULL THEN format('(SELECT %I FROM %s ORDER BY 1 LIMIT 1)', needed.parent_key, needed.parent)
            WHEN needed.type::text IN ('json', 'jsonb') OR needed.typcategory = 'A' THEN quote_literal('{}')
            WHEN needed.type::text = 'uuid' THEN quote_literal('00000000-0000-0000-0000-000000000000')
            WHEN needed.typcategory = 'B' THEN 'false'
            WHEN needed.typcategory = 'N' THEN '0'
            WHEN needed.typcategory = 'D' THEN 'now()'
            WHEN needed.typcategory = 'E' THEN format('(enum_range(NULL::%s))[1]', needed.type)
            ELSE quote_literal('')
        END;
    END LOOP;
    EXECUTE format('INSERT INTO public.prompts (%s) VALUES (%s) ON CONFLICT (id) DO NOTHING', columns, empties);
END
$$;

SELECT emberd.reserve_prompt();
