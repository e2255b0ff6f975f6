-- Product analytics. No foreign keys: what was observed stays true when a user or a prompt goes.

CREATE TABLE public.analytics_events (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    properties jsonb NOT NULL DEFAULT '{}',
    user_id uuid,
    session_id uuid,
    prompt_id uuid,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_analytics_events_created_at ON public.analytics_events (created_at DESC, id DESC);

CREATE TABLE public.api_usage_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid,
    method text NOT NULL,
    path text NOT NULL,
    status integer NOT NULL,
    latency_ms integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_api_usage_logs_created_at ON public.api_usage_logs (created_at DESC, id DESC);

CREATE TABLE public.daily_metrics (
    day date PRIMARY KEY,
    traces bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost numeric NOT NULL DEFAULT 0,
    users bigint NOT NULL DEFAULT 0,
    evaluations bigint NOT NULL DEFAULT 0
);

CREATE TABLE public.user_sessions (
    session_id uuid PRIMARY KEY,
    user_id uuid,
    first_activity_at timestamptz NOT NULL,
    last_activity_at timestamptz NOT NULL,
    traces bigint NOT NULL DEFAULT 0,
    tokens bigint NOT NULL DEFAULT 0,
    cost numeric NOT NULL DEFAULT 0
);
CREATE INDEX idx_user_sessions_last_activity_at ON public.user_sessions (last_activity_at DESC);

SELECT emberd.guard('public.analytics_events', NULL, NULL);
SELECT emberd.guard('public.api_usage_logs', NULL, NULL);
SELECT emberd.guard('public.daily_metrics', NULL, NULL);
SELECT emberd.guard('public.user_sessions', NULL, NULL);
