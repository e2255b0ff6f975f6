-- Evaluations, what they run on, experiments and alerts.

CREATE TABLE public.prompt_evaluations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    prompt_id uuid NOT NULL REFERENCES public.prompts (id) ON DELETE CASCADE,
    phoenix_eval_id text NOT NULL UNIQUE,
    name text NOT NULL,
    description text,
    status text NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    config jsonb NOT NULL DEFAULT '{}',
    results jsonb,
    metrics jsonb,
    error text,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_evaluations_prompt_id ON public.prompt_evaluations (prompt_id);
CREATE INDEX idx_evaluations_status ON public.prompt_evaluations (status);
CREATE INDEX idx_evaluations_created_by ON public.prompt_evaluations (created_by);

CREATE TABLE public.evaluation_datasets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    description text,
    type text NOT NULL CHECK (type IN ('qa_pairs', 'completions', 'classifications', 'custom')),
    data jsonb NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    is_public boolean NOT NULL DEFAULT false,
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_datasets_created_by ON public.evaluation_datasets (created_by);

CREATE TABLE public.evaluation_dataset_runs (
    evaluation_id uuid NOT NULL REFERENCES public.prompt_evaluations (id) ON DELETE CASCADE,
    dataset_id uuid NOT NULL REFERENCES public.evaluation_datasets (id),
    subset_config jsonb,
    PRIMARY KEY (evaluation_id, dataset_id)
);

CREATE TABLE public.evaluation_templates (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    description text,
    config jsonb NOT NULL,
    is_public boolean NOT NULL DEFAULT false,
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE public.experiments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    description text,
    phoenix_experiment_id text NOT NULL UNIQUE,
    prompt_ids uuid[] NOT NULL,
    baseline_prompt_id uuid REFERENCES public.prompts (id),
    config jsonb NOT NULL DEFAULT '{}',
    hypothesis text,
    status text NOT NULL CHECK (status IN ('draft', 'running', 'completed', 'cancelled')),
    results jsonb,
    conclusion text,
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_experiments_status ON public.experiments (status);
CREATE INDEX idx_experiments_prompt_ids ON public.experiments USING gin (prompt_ids);

CREATE TABLE public.phoenix_alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    description text,
    prompt_id uuid REFERENCES public.prompts (id) ON DELETE CASCADE,
    condition jsonb NOT NULL,
    actions jsonb NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Who may see and change what. emberd is the tables' owner, whom policies do not bind.
-- On Supabase every table of the schema public is served to the world: those without a policy are closed to all but the owner.
CREATE FUNCTION emberd.guard(guarded regclass, seen text, own text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    readers text := coalesce(to_regrole('authenticated')::text, 'PUBLIC');
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', guarded);
    IF seen IS NOT NULL THEN
        PERFORM emberd.allow(format('SELECT ON %s', guarded));
        EXECUTE format('CREATE POLICY emberd_see ON %s FOR SELECT TO %s USING (%s)', guarded, readers, seen);
    END IF;
    IF own IS NOT NULL THEN
        PERFORM emberd.allow(format('INSERT, UPDATE, DELETE ON %s', guarded));
        EXECUTE format('CREATE POLICY emberd_create ON %s FOR INSERT TO %s WITH CHECK (%s)', guarded, readers, own);
        EXECUTE format('CREATE POLICY emberd_change ON %s FOR UPDATE TO %s USING (%s) WITH CHECK (%s)', guarded, readers, own, own);
        EXECUTE format('CREATE POLICY emberd_delete ON %s FOR DELETE TO %s USING (%s)', guarded, readers, own);
    END IF;
END
$$;

SELECT emberd.guard('public.prompt_evaluations', 'true', 'created_by = auth.uid()');
SELECT emberd.guard('public.experiments', 'true', 'created_by = auth.uid()');
SELECT emberd.guard('public.evaluation_datasets', 'is_public OR created_by = auth.uid()', 'created_by = auth.uid()');
SELECT emberd.guard('public.evaluation_templates', 'is_public OR created_by = auth.uid()', 'created_by = auth.uid()');
SELECT emberd.guard('public.phoenix_alerts', 'created_by = auth.uid()', 'created_by = auth.uid()');
SELECT emberd.guard(
    'public.evaluation_dataset_runs',
    'true',
    'EXISTS (SELECT FROM public.prompt_evaluations e WHERE e.id = evaluation_id AND e.created_by = auth.uid())'
);
