-- What the recorder remembers, and the summary that comes of it.

-- Where each consumer of each log stands; moved in the transaction that writes what it read.
CREATE TABLE emberd.cursors (
    consumer text NOT NULL,
    writer text NOT NULL,
    pos bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, writer)
) WITH (fillfactor = 50);

-- The spans of traces that still take in spans, and what each trace adds to the rollups of prompt_id (nothing where that is null).
-- version guards against two writers; touched_at is cut to the minute, so that most updates leave its index alone.
CREATE TABLE emberd.trace_state (
    trace_id bytea PRIMARY KEY,
    version bigint NOT NULL,
    state bytea NOT NULL,
    first_seen_at timestamptz NOT NULL,
    touched_at timestamptz NOT NULL,
    waiting boolean NOT NULL,
    prompt_id uuid,
    hour bigint,
    latency_ms bigint,
    status text,
    prompt_tokens bigint,
    completion_tokens bigint,
    total_tokens bigint,
    llm_time_ms bigint
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX trace_state_touched_at ON emberd.trace_state (touched_at);
CREATE INDEX trace_state_waiting ON emberd.trace_state (first_seen_at) WHERE waiting;

-- What the traces of a prompt add up to in an hour (h), a day (d) or for ever (a). Each writer has rows of its own: readers add them
-- up, and one row alone may hold negative counts. bucket is in whole hours since 1970.
CREATE TABLE emberd.rollups (
    prompt_id uuid NOT NULL REFERENCES public.prompts (id) ON DELETE CASCADE,
    resolution text NOT NULL CHECK (resolution IN ('h', 'd', 'a')),
    bucket bigint NOT NULL,
    writer text NOT NULL,
    success bigint NOT NULL,
    error bigint NOT NULL,
    timeout bigint NOT NULL,
    latency_sum_ms bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    llm_time_ms bigint NOT NULL,
    sketch bytea NOT NULL,
    PRIMARY KEY (prompt_id, resolution, bucket, writer)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
ALTER TABLE emberd.rollups ALTER COLUMN sketch SET STORAGE EXTERNAL;
-- Who was active on a day.
CREATE INDEX rollups_days ON emberd.rollups (bucket, prompt_id) WHERE resolution = 'd';

-- Hours of prompts whose metrics no longer follow from the rollups. Only ever added to and taken away from, so that no writer waits.
CREATE TABLE emberd.dirty (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prompt_id uuid NOT NULL,
    hour bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- The last UTC day (since 1970) up to which windows that end at now were published.
CREATE TABLE emberd.published (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    day bigint NOT NULL
);

CREATE TABLE emberd.totals (
    prompt_id uuid PRIMARY KEY REFERENCES public.prompts (id) ON DELETE CASCADE,
    traces bigint NOT NULL,
    success bigint NOT NULL,
    latency_sum_ms bigint NOT NULL,
    total_tokens bigint NOT NULL,
    median_latency double precision,
    p95_latency double precision,
    last_used_at timestamptz
) WITH (fillfactor = 50);

-- security_invoker: whoever may not see a prompt does not see its summary either.
CREATE VIEW public.prompt_performance_summary WITH (security_invoker = true) AS
SELECT
    p.id AS prompt_id,
    p.title AS prompt_title,
    coalesce(t.traces, 0) AS total_traces,
    (SELECT count(*) FROM public.prompt_evaluations e WHERE e.prompt_id = p.id) AS total_evaluations,
    t.latency_sum_ms::double precision / nullif(t.traces, 0) AS avg_latency,
    t.median_latency,
    t.p95_latency,
    t.success::double precision / nullif(t.traces, 0) AS success_rate,
    t.total_tokens::double precision / nullif(t.traces, 0) AS avg_tokens,
    t.last_used_at
FROM public.prompts p
LEFT JOIN emberd.totals t ON t.prompt_id = p.id;

-- A prompt goes with its rows and rollups; the states of its traces must forget that they counted there. As its owner, for whoever
-- deletes a prompt knows nothing of this schema.
CREATE FUNCTION emberd.forget_prompts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    UPDATE emberd.trace_state s SET version = s.version + 1, prompt_id = NULL
    FROM gone WHERE s.prompt_id = gone.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER emberd_forget_prompts AFTER DELETE ON public.prompts
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION emberd.forget_prompts();

SELECT emberd.allow('USAGE ON SCHEMA emberd');
SELECT emberd.allow('SELECT ON emberd.totals, public.prompt_performance_summary');
