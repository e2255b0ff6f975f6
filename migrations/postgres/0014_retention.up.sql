-- What is too old goes in small batches, each found by an index; traces that are gone are remembered, so that a late span does not bring
-- half of one back.

CREATE TABLE emberd.forgotten (
    trace_id bytea PRIMARY KEY,
    -- microseconds since 1970
    at bigint NOT NULL
);
CREATE INDEX forgotten_at ON emberd.forgotten (at);

CREATE INDEX jobs_closed ON emberd.jobs (created_at, id) WHERE phase = 'closed';
CREATE INDEX outbox_refused ON emberd.outbox (due_at) WHERE refused IS NOT NULL;
CREATE INDEX rollups_bucket ON emberd.rollups (bucket) WHERE resolution <> 'a';
CREATE INDEX idx_metrics_timestamp ON public.prompt_performance_metrics ("timestamp");
