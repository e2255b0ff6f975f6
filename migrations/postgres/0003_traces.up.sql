-- One row for each trace that has an LLM call or names a prompt, and what they add up to.

CREATE TABLE public.prompt_traces (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    prompt_id uuid NOT NULL REFERENCES public.prompts (id) ON DELETE CASCADE,
    phoenix_trace_id text NOT NULL UNIQUE,
    session_id uuid,
    execution_time_ms integer NOT NULL,
    tokens_used jsonb NOT NULL DEFAULT '{"prompt": 0, "completion": 0, "total": 0}',
    model text NOT NULL,
    status text NOT NULL CHECK (status IN ('success', 'error', 'timeout')),
    error text,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    user_id uuid REFERENCES public.profiles (id) ON DELETE SET NULL
);
CREATE INDEX idx_traces_prompt_id ON public.prompt_traces (prompt_id, created_at DESC, id DESC);
CREATE INDEX idx_traces_session_id ON public.prompt_traces (session_id, created_at DESC) WHERE session_id IS NOT NULL;
CREATE INDEX idx_traces_created_at ON public.prompt_traces (created_at DESC, id DESC);
-- Traces that name a prompt which does not exist yet, by that name. Cut short, as an index entry has a limit and a name has none.
-- IS TRUE keeps the planner from finding these rows by prompt_id instead.
CREATE INDEX idx_traces_prompt_ref ON public.prompt_traces (("left"(metadata ->> 'prompt_ref', 100)) COLLATE "C")
    WHERE (prompt_id = '00000000-0000-0000-0000-000000000000') IS TRUE AND (metadata ->> 'prompt_ref') IS NOT NULL;

CREATE TABLE public.prompt_performance_metrics (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    prompt_id uuid NOT NULL REFERENCES public.prompts (id) ON DELETE CASCADE,
    metric_type text NOT NULL CHECK (metric_type IN
        ('latency_p50', 'latency_p90', 'latency_p99', 'tokens_per_second', 'success_rate', 'error_rate')),
    value numeric NOT NULL,
    "timestamp" timestamptz NOT NULL,
    aggregation_window text NOT NULL CHECK (aggregation_window IN ('1h', '1d', '7d', '30d')),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (prompt_id, metric_type, aggregation_window, "timestamp")
) WITH (fillfactor = 70);

SELECT emberd.guard('public.prompt_traces', 'true', 'user_id = auth.uid()');
SELECT emberd.guard('public.prompt_performance_metrics', 'true', NULL);
