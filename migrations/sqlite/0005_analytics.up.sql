-- Product analytics. No foreign keys: what was observed stays true when a user or a prompt goes.

CREATE TABLE analytics_events (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    properties TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(properties)),
    user_id TEXT,
    session_id TEXT,
    prompt_id TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27)
) STRICT;
CREATE INDEX idx_analytics_events_created_at ON analytics_events (created_at DESC, id DESC);

CREATE TABLE api_usage_logs (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    status INTEGER NOT NULL,
    latency_ms INTEGER NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27)
) STRICT;
CREATE INDEX idx_api_usage_logs_created_at ON api_usage_logs (created_at DESC, id DESC);

-- day as 2026-11-21; cost in exact decimals, as text.
CREATE TABLE daily_metrics (
    day TEXT NOT NULL PRIMARY KEY CHECK (length(day) = 10),
    traces INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    cost TEXT NOT NULL DEFAULT '0',
    users INTEGER NOT NULL DEFAULT 0,
    evaluations INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE user_sessions (
    session_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT,
    first_activity_at TEXT NOT NULL CHECK (length(first_activity_at) = 27),
    last_activity_at TEXT NOT NULL CHECK (length(last_activity_at) = 27),
    traces INTEGER NOT NULL DEFAULT 0,
    tokens INTEGER NOT NULL DEFAULT 0,
    cost TEXT NOT NULL DEFAULT '0'
) STRICT;
CREATE INDEX idx_user_sessions_last_activity_at ON user_sessions (last_activity_at DESC);
