-- Evaluations, what they run on, experiments and alerts. Who may see and change what stands in the queries: SQLite has no policies.

CREATE TABLE prompt_evaluations (
    id TEXT NOT NULL PRIMARY KEY,
    prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE,
    phoenix_eval_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    description TEXT,
    status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    config TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(config)),
    results TEXT CHECK (json_valid(results)),
    metrics TEXT CHECK (json_valid(metrics)),
    error TEXT,
    started_at TEXT CHECK (length(started_at) = 27),
    completed_at TEXT CHECK (length(completed_at) = 27),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27),
    created_by TEXT NOT NULL REFERENCES profiles (id),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(updated_at) = 27)
) STRICT;
CREATE INDEX idx_evaluations_prompt_id ON prompt_evaluations (prompt_id);
CREATE INDEX idx_evaluations_status ON prompt_evaluations (status);
CREATE INDEX idx_evaluations_created_by ON prompt_evaluations (created_by);

CREATE TABLE evaluation_datasets (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    type TEXT NOT NULL CHECK (type IN ('qa_pairs', 'completions', 'classifications', 'custom')),
    data TEXT NOT NULL CHECK (json_valid(data)),
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    is_public INTEGER NOT NULL DEFAULT 0 CHECK (is_public IN (0, 1)),
    created_by TEXT NOT NULL REFERENCES profiles (id),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(updated_at) = 27)
) STRICT;
CREATE INDEX idx_datasets_created_by ON evaluation_datasets (created_by);

CREATE TABLE evaluation_dataset_runs (
    evaluation_id TEXT NOT NULL REFERENCES prompt_evaluations (id) ON DELETE CASCADE,
    dataset_id TEXT NOT NULL REFERENCES evaluation_datasets (id),
    subset_config TEXT CHECK (json_valid(subset_config)),
    PRIMARY KEY (evaluation_id, dataset_id)
) STRICT;

CREATE TABLE evaluation_templates (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    config TEXT NOT NULL CHECK (json_valid(config)),
    is_public INTEGER NOT NULL DEFAULT 0 CHECK (is_public IN (0, 1)),
    created_by TEXT NOT NULL REFERENCES profiles (id),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27)
) STRICT;

CREATE TABLE experiments (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    phoenix_experiment_id TEXT NOT NULL UNIQUE,
    prompt_ids TEXT NOT NULL CHECK (json_type(prompt_ids) = 'array'),
    baseline_prompt_id TEXT REFERENCES prompts (id),
    config TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(config)),
    hypothesis TEXT,
    status TEXT NOT NULL CHECK (status IN ('draft', 'running', 'completed', 'cancelled')),
    results TEXT CHECK (json_valid(results)),
    conclusion TEXT,
    created_by TEXT NOT NULL REFERENCES profiles (id),
    started_at TEXT CHECK (length(started_at) = 27),
    completed_at TEXT CHECK (length(completed_at) = 27),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(updated_at) = 27)
) STRICT;
CREATE INDEX idx_experiments_status ON experiments (status);

CREATE TABLE phoenix_alerts (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    description TEXT,
    prompt_id TEXT REFERENCES prompts (id) ON DELETE CASCADE,
    condition TEXT NOT NULL CHECK (json_valid(condition)),
    actions TEXT NOT NULL CHECK (json_valid(actions)),
    is_active INTEGER NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_by TEXT NOT NULL REFERENCES profiles (id),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27)
) STRICT;
