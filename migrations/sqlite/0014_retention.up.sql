-- What is too old goes in small batches, each found by an index; traces that are gone are remembered, so that a late span does not bring
-- half of one back.

CREATE TABLE emberd_forgotten (
    trace_id BLOB NOT NULL PRIMARY KEY,
    -- microseconds since 1970
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_forgotten_at ON emberd_forgotten (at);

CREATE INDEX emberd_jobs_closed ON emberd_jobs (created_at, id) WHERE phase = 'closed';
CREATE INDEX emberd_outbox_refused ON emberd_outbox (due_at) WHERE refused IS NOT NULL;
CREATE INDEX emberd_rollups_bucket ON emberd_rollups (bucket) WHERE resolution <> 'a';
CREATE INDEX idx_metrics_timestamp ON prompt_performance_metrics ("timestamp");
