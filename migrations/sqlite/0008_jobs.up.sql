-- Evaluation jobs (docs/decisions/0011-evaluation.md). Times are microseconds since 1970, money is nano-dollars.

CREATE TABLE emberd_jobs (
    id TEXT NOT NULL PRIMARY KEY REFERENCES prompt_evaluations (id) ON DELETE CASCADE,
    plan TEXT NOT NULL CHECK (json_valid(plan)),
    -- preparing: targets are still written; open: items may be taken; closing: all items are done, the row's results are not; closed
    phase TEXT NOT NULL CHECK (phase IN ('preparing', 'open', 'closing', 'closed')),
    budget INTEGER CHECK (budget >= 0),
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    tokens INTEGER NOT NULL DEFAULT 0,
    -- items that are blocked, waiting or leased, so that the last one to end is known without counting
    items_left INTEGER NOT NULL DEFAULT 0 CHECK (items_left >= 0),
    -- who asked for it, and under which key: asked again, it is this job
    creator TEXT NOT NULL,
    idempotency_key TEXT,
    -- who prepares or closes it, and until when
    owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX emberd_jobs_unfinished ON emberd_jobs (created_at, id) WHERE phase <> 'closed';
CREATE UNIQUE INDEX emberd_jobs_asked ON emberd_jobs (creator, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE emberd_job_targets (
    job TEXT NOT NULL REFERENCES emberd_jobs (id) ON DELETE CASCADE,
    nr INTEGER NOT NULL,
    -- the example's id, or the trace's
    target TEXT NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body)),
    -- what the run step gave
    output TEXT CHECK (json_valid(output)),
    PRIMARY KEY (job, nr),
    UNIQUE (job, target)
) STRICT, WITHOUT ROWID;

-- A row is a range of targets, nr to upto, through one step: taken, held and ended together. Ranges of a step do not overlap: they are made
-- with their targets, and parted only by who holds them.
CREATE TABLE emberd_job_items (
    job TEXT NOT NULL REFERENCES emberd_jobs (id) ON DELETE CASCADE,
    nr INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    -- 0: the prompt run by a model; n: the plan's n-th evaluator
    step INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('blocked', 'waiting', 'leased', 'done', 'failed', 'cancelled')),
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease_until INTEGER NOT NULL DEFAULT 0,
    fence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, nr, step),
    CHECK (upto = nr OR (upto > nr AND state NOT IN ('blocked', 'failed')))
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_job_items_waiting ON emberd_job_items (job, step, due_at, nr) WHERE state = 'waiting';
CREATE INDEX emberd_job_items_leased ON emberd_job_items (job, step, lease_until, nr) WHERE state = 'leased';

CREATE TABLE emberd_job_results (
    job TEXT NOT NULL REFERENCES emberd_jobs (id) ON DELETE CASCADE,
    nr INTEGER NOT NULL,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    score REAL,
    label TEXT,
    explanation TEXT,
    direction TEXT NOT NULL CHECK (direction IN ('maximize', 'minimize', 'neutral')),
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    error_class TEXT,
    error TEXT,
    cost INTEGER NOT NULL DEFAULT 0,
    latency_us INTEGER NOT NULL DEFAULT 0,
    cached INTEGER NOT NULL DEFAULT 0 CHECK (cached IN (0, 1)),
    at INTEGER NOT NULL,
    PRIMARY KEY (job, nr, step, name),
    CHECK ((error_class IS NULL) = (error IS NULL)),
    CHECK (error_class IS NULL OR (score IS NULL AND label IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_job_results_errors ON emberd_job_results (job, nr, step, name) WHERE error_class IS NOT NULL;

CREATE TABLE emberd_job_calls (
    job TEXT NOT NULL REFERENCES emberd_jobs (id) ON DELETE CASCADE,
    nr INTEGER NOT NULL,
    step INTEGER NOT NULL,
    call INTEGER NOT NULL,
    -- the item's when it was made
    fence INTEGER NOT NULL,
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    -- null while it is on its way
    spent INTEGER CHECK (spent >= 0),
    tokens INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL,
    PRIMARY KEY (job, nr, step, call)
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_job_calls_out ON emberd_job_calls (job, nr, step, call) WHERE spent IS NULL;

CREATE TABLE emberd_answers (
    digest BLOB NOT NULL PRIMARY KEY,
    body TEXT NOT NULL,
    cost INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX emberd_answers_at ON emberd_answers (at);

CREATE TABLE emberd_rules (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    config TEXT NOT NULL CHECK (json_valid(config)),
    is_enabled INTEGER NOT NULL CHECK (is_enabled IN (0, 1)),
    budget INTEGER CHECK (budget >= 0),
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    tokens INTEGER NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL REFERENCES profiles (id),
    created_at INTEGER NOT NULL
) STRICT;

-- A call of a paid endpoint for a rule; cut off if it is not settled by `until`.
CREATE TABLE emberd_rule_calls (
    rule TEXT NOT NULL REFERENCES emberd_rules (id) ON DELETE CASCADE,
    call INTEGER NOT NULL,
    until INTEGER NOT NULL,
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    spent INTEGER CHECK (spent >= 0),
    tokens INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL,
    PRIMARY KEY (rule, call)
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_rule_calls_out ON emberd_rule_calls (until) WHERE spent IS NULL;
CREATE INDEX emberd_rule_calls_at ON emberd_rule_calls (at) WHERE spent IS NOT NULL;

-- What was decided of each trace by each rule; a trace that changed after it was scored is decided again, under the next epoch.
CREATE TABLE emberd_decisions (
    rule TEXT NOT NULL REFERENCES emberd_rules (id) ON DELETE CASCADE,
    trace_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    decision TEXT NOT NULL,
    detail TEXT,
    -- how many spans were seen
    spans INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (rule, trace_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_decisions_trace ON emberd_decisions (trace_id);
CREATE INDEX emberd_decisions_at ON emberd_decisions (at);

-- Scores of traces by rules; the last one stands.
CREATE TABLE emberd_trace_scores (
    trace_id BLOB NOT NULL,
    rule TEXT NOT NULL REFERENCES emberd_rules (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    version TEXT NOT NULL,
    -- what it is of: trace, session, or a span's id
    subject TEXT NOT NULL,
    score REAL,
    label TEXT,
    explanation TEXT,
    direction TEXT NOT NULL CHECK (direction IN ('maximize', 'minimize', 'neutral')),
    metadata TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(metadata)),
    error_class TEXT,
    error TEXT,
    cost INTEGER NOT NULL DEFAULT 0,
    at INTEGER NOT NULL,
    PRIMARY KEY (trace_id, rule, name),
    CHECK ((error_class IS NULL) = (error IS NULL)),
    CHECK (error_class IS NULL OR (score IS NULL AND label IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX emberd_trace_scores_at ON emberd_trace_scores (at);

-- What Phoenix is still to be told. A row goes when it was told; one refused for good stays, with the reason.
CREATE TABLE emberd_outbox (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body)),
    -- raised by each put; who told an older one does not take the newer away
    version INTEGER NOT NULL DEFAULT 1,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL,
    refused TEXT,
    PRIMARY KEY (kind, key)
) STRICT;
CREATE INDEX emberd_outbox_due ON emberd_outbox (due_at) WHERE refused IS NULL;

-- Whether an evaluation ran on a dataset, which its deletion asks.
CREATE INDEX idx_dataset_runs_dataset_id ON evaluation_dataset_runs (dataset_id);
