-- Fewer B-trees with random keys. A row of prompt_traces has a number (emberd_no, which no VACUUM changes); its state has the same, so
-- the one index over trace ids finds both. id is the trace id written as a UUID, so that it needs no index of its own either: who looks for
-- an id looks for that trace.

DROP INDEX idx_traces_prompt_id;
DROP INDEX idx_traces_session_id;
DROP INDEX idx_traces_created_at;
DROP INDEX idx_traces_prompt_ref;
ALTER TABLE prompt_traces RENAME TO emberd_old_traces;
CREATE TABLE prompt_traces (
    id TEXT NOT NULL,
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
    user_id TEXT REFERENCES profiles (id) ON DELETE SET NULL,
    emberd_no INTEGER PRIMARY KEY
) STRICT;
INSERT INTO prompt_traces (id, prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata,
    created_at, user_id)
SELECT CASE WHEN length(phoenix_trace_id) = 32 AND phoenix_trace_id NOT GLOB '*[^0-9a-f]*'
        THEN substr(phoenix_trace_id, 1, 8) || '-' || substr(phoenix_trace_id, 9, 4) || '-' || substr(phoenix_trace_id, 13, 4) || '-'
            || substr(phoenix_trace_id, 17, 4) || '-' || substr(phoenix_trace_id, 21)
        ELSE id END,
    prompt_id, phoenix_trace_id, session_id, execution_time_ms, tokens_used, model, status, error, metadata, created_at, user_id
FROM emberd_old_traces ORDER BY rowid;
DROP TABLE emberd_old_traces;
CREATE INDEX idx_traces_prompt_id ON prompt_traces (prompt_id, created_at DESC, id DESC);
CREATE INDEX idx_traces_session_id ON prompt_traces (session_id, created_at DESC) WHERE session_id IS NOT NULL;
CREATE INDEX idx_traces_created_at ON prompt_traces (created_at DESC, id DESC);

-- Rows that name a prompt which does not exist yet, by the first 100 characters of that name. An entry whose row went elsewhere is
-- dropped when it is met.
CREATE TABLE emberd_unjoined (
    name TEXT NOT NULL,
    no INTEGER NOT NULL,
    PRIMARY KEY (name, no)
) STRICT, WITHOUT ROWID;
INSERT INTO emberd_unjoined (name, no)
SELECT substr(metadata ->> '$.prompt_ref', 1, 100), emberd_no FROM prompt_traces
WHERE prompt_id = '00000000-0000-0000-0000-000000000000' AND (metadata ->> '$.prompt_ref') IS NOT NULL;

-- The spans of traces that still take in spans, and what each trace adds to the rollups of prompt_id (nothing where that is null).
-- no: its row's emberd_no; below zero while it has none, and then trace_id finds it. version guards against two writers. Times are in
-- whole minutes and microseconds since 1970: what stands here is read by nobody else.
DROP TRIGGER emberd_forget_prompt;
DROP INDEX emberd_trace_state_touched_at;
DROP INDEX emberd_trace_state_waiting;
ALTER TABLE emberd_trace_state RENAME TO emberd_old_state;
CREATE TABLE emberd_trace_state (
    no INTEGER PRIMARY KEY,
    trace_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    first_seen_micros INTEGER NOT NULL,
    touched_minute INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    prompt_id TEXT,
    hour INTEGER,
    latency_ms INTEGER,
    status TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    total_tokens INTEGER,
    llm_time_ms INTEGER,
    state BLOB NOT NULL
) STRICT;
INSERT INTO emberd_trace_state
SELECT coalesce(t.emberd_no, -s.rowid), s.trace_id, s.version,
    CAST(strftime('%s', s.first_seen_at) AS INTEGER) * 1000000 + CAST(substr(s.first_seen_at, 21, 6) AS INTEGER),
    CAST(strftime('%s', s.touched_at) AS INTEGER) / 60,
    s.waiting, s.prompt_id, s.hour, s.latency_ms, s.status, s.prompt_tokens, s.completion_tokens, s.total_tokens, s.llm_time_ms, s.state
FROM emberd_old_state s LEFT JOIN prompt_traces t ON t.phoenix_trace_id = lower(hex(s.trace_id))
ORDER BY s.rowid;
DROP TABLE emberd_old_state;
CREATE UNIQUE INDEX emberd_trace_state_rowless ON emberd_trace_state (trace_id) WHERE no < 0;
CREATE INDEX emberd_trace_state_touched ON emberd_trace_state (touched_minute);
CREATE INDEX emberd_trace_state_waiting ON emberd_trace_state (first_seen_micros) WHERE waiting;

-- A row that goes leaves its state behind, under a number of those without one. A row that went with its prompt took the rollups along
-- in which it counted: its state forgets them.
CREATE TRIGGER emberd_forget_row AFTER DELETE ON prompt_traces
BEGIN
    DELETE FROM emberd_unjoined WHERE no = OLD.emberd_no AND name = substr(OLD.metadata ->> '$.prompt_ref', 1, 100);
    UPDATE emberd_trace_state SET version = version + 1,
        prompt_id = CASE WHEN EXISTS (SELECT 1 FROM prompts WHERE id = OLD.prompt_id) THEN prompt_id END,
        no = (SELECT min(min(no), 0) - 1 FROM emberd_trace_state)
    WHERE no = OLD.emberd_no;
END;
CREATE TRIGGER emberd_forget_prompt AFTER DELETE ON prompts
BEGIN
    UPDATE emberd_trace_state SET version = version + 1, prompt_id = NULL WHERE no < 0 AND prompt_id = OLD.id;
END;
