DROP TRIGGER emberd_forget_prompt;
DROP TRIGGER emberd_forget_row;
DROP TABLE emberd_unjoined;
DROP INDEX emberd_trace_state_rowless;
DROP INDEX emberd_trace_state_touched;
DROP INDEX emberd_trace_state_waiting;
ALTER TABLE emberd_trace_state RENAME TO emberd_old_state;
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
INSERT OR REPLACE INTO emberd_trace_state
SELECT trace_id, version, state,
    strftime('%Y-%m-%dT%H:%M:%S', first_seen_micros / 1000000, 'unixepoch') || printf('.%06dZ', first_seen_micros % 1000000),
    strftime('%Y-%m-%dT%H:%M:%S', touched_minute * 60, 'unixepoch') || '.000000Z',
    waiting, prompt_id, hour, latency_ms, status, prompt_tokens, completion_tokens, total_tokens, llm_time_ms
FROM emberd_old_state ORDER BY no;
DROP TABLE emberd_old_state;
CREATE INDEX emberd_trace_state_touched_at ON emberd_trace_state (touched_at);
CREATE INDEX emberd_trace_state_waiting ON emberd_trace_state (first_seen_at) WHERE waiting;

DROP INDEX idx_traces_prompt_id;
DROP INDEX idx_traces_session_id;
DROP INDEX idx_traces_created_at;
ALTER TABLE prompt_traces RENAME TO emberd_old_traces;
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
INSERT INTO prompt_traces
SELECT id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata, created_at, user_id
FROM emberd_old_traces ORDER BY emberd_no;
DROP TABLE emberd_old_traces;
CREATE INDEX idx_traces_prompt_id ON prompt_traces (prompt_id, created_at DESC, id DESC);
CREATE INDEX idx_traces_session_id ON prompt_traces (session_id, created_at DESC) WHERE session_id IS NOT NULL;
CREATE INDEX idx_traces_created_at ON prompt_traces (created_at DESC, id DESC);
CREATE INDEX idx_traces_prompt_ref ON prompt_traces (substr(metadata ->> '$.prompt_ref', 1, 100))
    WHERE prompt_id = '00000000-0000-0000-0000-000000000000' AND (metadata ->> '$.prompt_ref') IS NOT NULL;

CREATE TRIGGER emberd_forget_prompt AFTER DELETE ON prompts
BEGIN
    UPDATE emberd_trace_state SET version = version + 1, prompt_id = NULL WHERE prompt_id = OLD.id;
END;
