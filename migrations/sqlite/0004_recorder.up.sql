-- What the recorder remembers, and the summary that comes of it.

-- Where each consumer of each log stands; moved in the transaction that writes what it read.
CREATE TABLE emberd_cursors (
    consumer TEXT NOT NULL,
    writer TEXT NOT NULL,
    pos INTEGER NOT NULL,
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
    PRIMARY KEY (consumer, writer)
) STRICT;

-- The spans of traces that still take in spans, and what each trace adds to the rollups of prompt_id (nothing where that is null).
-- version guards against two writers; touched_at is cut to the minute, so that most updates leave its index alone.
-- With a rowid: the states are far longer than their random keys.
CREATE TABLE emberd_trace_state (
    trace_id BLOB NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    state BLOB NOT NULL,
    first_seen_at TEXT NOT NULL,
    touched_at TEXT NOT NULL,
    waiting INTEGER NOT NULL,
    prompt_id TEXT,
    hour INTEGER,
    latency_ms INTEGER,
    status TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    total_tokens INTEGER,
    llm_time_ms INTEGER
) STRICT;
CREATE INDEX emberd_trace_state_touched_at ON emberd_trace_state (touched_at);
CREATE INDEX emberd_trace_state_waiting ON emberd_trace_state (first_seen_at) WHERE waiting;

-- What the traces of a prompt add up to in an hour (h), a day (d) or for ever (a). Each writer has rows of its own: readers add them
-- up, and one row alone may hold negative counts. bucket is in whole hours since 1970.
CREATE TABLE emberd_rollups (
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    resolution TEXT NOT NULL CHECK (resolution IN ('h', 'd', 'a')),
    bucket INTEGER NOT NULL,
    writer TEXT NOT NULL,
    success INTEGER NOT NULL,
    error INTEGER NOT NULL,
    timeout INTEGER NOT NULL,
    latency_sum_ms INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    llm_time_ms INTEGER NOT NULL,
    sketch BLOB NOT NULL,
    PRIMARY KEY (prompt_id, resolution, bucket, writer)
) STRICT;
-- Who was active on a day.
CREATE INDEX emberd_rollups_days ON emberd_rollups (bucket, prompt_id) WHERE resolution = 'd';

-- Hours of prompts whose metrics no longer follow from the rollups.
CREATE TABLE emberd_dirty (
    id INTEGER PRIMARY KEY,
    prompt_id TEXT NOT NULL,
    hour INTEGER NOT NULL
) STRICT;

-- The last UTC day (since 1970) up to which windows that end at now were published.
CREATE TABLE emberd_published (
    single INTEGER PRIMARY KEY CHECK (single = 1),
    day INTEGER NOT NULL
) STRICT;

CREATE TABLE emberd_totals (
    prompt_id TEXT NOT NULL PRIMARY KEY REFERENCES prompts (id) ON DELETE CASCADE,
    traces INTEGER NOT NULL,
    success INTEGER NOT NULL,
    latency_sum_ms INTEGER NOT NULL,
    total_tokens INTEGER NOT NULL,
    median_latency REAL,
    p95_latency REAL,
    last_used_at TEXT
) STRICT;

CREATE VIEW prompt_performance_summary AS
SELECT
    p.id AS prompt_id,
    p.title AS prompt_title,
    coalesce(t.traces, 0) AS total_traces,
    (SELECT count(*) FROM prompt_evaluations e WHERE e.prompt_id = p.id) AS total_evaluations,
    CAST(t.latency_sum_ms AS REAL) / nullif(t.traces, 0) AS avg_latency,
    t.median_latency,
    t.p95_latency,
    CAST(t.success AS REAL) / nullif(t.traces, 0) AS success_rate,
    CAST(t.total_tokens AS REAL) / nullif(t.traces, 0) AS avg_tokens,
    t.last_used_at
FROM prompts p
LEFT JOIN emberd_totals t ON t.prompt_id = p.id;

-- A prompt goes with its rows and rollups; the states of its traces must forget that they counted there.
CREATE TRIGGER emberd_forget_prompt AFTER DELETE ON prompts
BEGIN
    UPDATE emberd_trace_state SET version = version + 1, prompt_id = NULL WHERE prompt_id = OLD.id;
END;
