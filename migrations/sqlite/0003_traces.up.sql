-- One row for each trace that has an LLM call or names a prompt, and what they add up to.

CREATE TABLE prompt_traces (
    id TEXT NOT NULL PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    phoenix_trace_id TEXT NOT NULL UNIQUE,
    session_id TEXT,
    execution_time_ms INTEGER NOT NULL,
    tokens_used TEXT NOT NULL DEFAULT '{"prompt": 0, "completion": 0, "total": 0}' CHECK (json_valid(tokens_used)),
    model TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('success', 'error', 'timeout')),
    error TEXT,
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27),
    user_id TEXT REFERENCES profiles (id) ON DELETE SET NULL
) STRICT;
CREATE INDEX idx_traces_prompt_id ON prompt_traces (prompt_id, created_at DESC, id DESC);
CREATE INDEX idx_traces_session_id ON prompt_traces (session_id, created_at DESC) WHERE session_id IS NOT NULL;
CREATE INDEX idx_traces_created_at ON prompt_traces (created_at DESC, id DESC);
-- Traces that name a prompt which does not exist yet, by that name.
CREATE INDEX idx_traces_prompt_ref ON prompt_traces (substr(metadata ->> '$.prompt_ref', 1, 100))
    WHERE prompt_id = '00000000-0000-0000-0000-000000000000' AND (metadata ->> '$.prompt_ref') IS NOT NULL;

CREATE TABLE prompt_performance_metrics (
    id TEXT NOT NULL PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    metric_type TEXT NOT NULL CHECK (metric_type IN
        ('latency_p50', 'latency_p90', 'latency_p99', 'tokens_per_second', 'success_rate', 'error_rate')),
    value REAL NOT NULL,
    "timestamp" TEXT NOT NULL CHECK (length("timestamp") = 27),
    aggregation_window TEXT NOT NULL CHECK (aggregation_window IN ('1h', '1d', '7d', '30d')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27),
    UNIQUE (prompt_id, metric_type, aggregation_window, "timestamp")
) STRICT;
