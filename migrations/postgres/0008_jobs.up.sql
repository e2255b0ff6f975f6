-- Evaluation jobs (docs/decisions/0011-evaluation.md). Times are microseconds since 1970, money is nano-dollars.

CREATE TABLE emberd.jobs (
    id uuid PRIMARY KEY REFERENCES public.prompt_evaluations (id) ON DELETE CASCADE,
    plan jsonb NOT NULL,
    -- preparing: targets are still written; open: items may be taken; closing: all items are done, the row's results are not; closed
    phase text NOT NULL CHECK (phase IN ('preparing', 'open', 'closing', 'closed')),
    budget bigint CHECK (budget >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent >= 0),
    tokens bigint NOT NULL DEFAULT 0,
    -- items that are blocked, waiting or leased, so that the last one to end is known without counting
    items_left bigint NOT NULL DEFAULT 0 CHECK (items_left >= 0),
    -- who asked for it, and under which key: asked again, it is this job
    creator uuid NOT NULL,
    idempotency_key text,
    -- who prepares or closes it, and until when
    owner text,
    lease_until bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL
);
CREATE INDEX jobs_unfinished ON emberd.jobs (created_at, id) WHERE phase <> 'closed';
CREATE UNIQUE INDEX jobs_asked ON emberd.jobs (creator, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE emberd.job_targets (
    job uuid NOT NULL REFERENCES emberd.jobs (id) ON DELETE CASCADE,
    nr bigint NOT NULL,
    -- the example's id, or the trace's
    target text NOT NULL,
    body jsonb NOT NULL,
    -- what the run step gave
    output jsonb,
    PRIMARY KEY (job, nr),
    UNIQUE (job, target)
);

-- A row is a range of targets, nr to upto, through one step: taken, held and ended together. Ranges of a step do not overlap: they are made
-- with their targets, and parted only by who holds them.
CREATE TABLE emberd.job_items (
    job uuid NOT NULL REFERENCES emberd.jobs (id) ON DELETE CASCADE,
    nr bigint NOT NULL,
    upto bigint NOT NULL,
    -- 0: the prompt run by a model; n: the plan's n-th evaluator
    step bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('blocked', 'waiting', 'leased', 'done', 'failed', 'cancelled')),
    attempts bigint NOT NULL DEFAULT 0,
    due_at bigint NOT NULL DEFAULT 0,
    owner text,
    lease_until bigint NOT NULL DEFAULT 0,
    fence bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (job, nr, step),
    CHECK (upto = nr OR (upto > nr AND state NOT IN ('blocked', 'failed')))
);
CREATE INDEX job_items_waiting ON emberd.job_items (job, step, due_at, nr) WHERE state = 'waiting';
CREATE INDEX job_items_leased ON emberd.job_items (job, step, lease_until, nr) WHERE state = 'leased';

CREATE TABLE emberd.job_results (
    job uuid NOT NULL REFERENCES emberd.jobs (id) ON DELETE CASCADE,
    nr bigint NOT NULL,
    step bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    score double precision,
    label text,
    explanation text,
    direction text NOT NULL CHECK (direction IN ('maximize', 'minimize', 'neutral')),
    metadata jsonb NOT NULL DEFAULT '{}',
    error_class text,
    error text,
    cost bigint NOT NULL DEFAULT 0,
    latency_us bigint NOT NULL DEFAULT 0,
    cached boolean NOT NULL DEFAULT false,
    at bigint NOT NULL,
    PRIMARY KEY (job, nr, step, name),
    CHECK ((error_class IS NULL) = (error IS NULL)),
    CHECK (error_class IS NULL OR (score IS NULL AND label IS NULL))
);
CREATE INDEX job_results_errors ON emberd.job_results (job, nr, step, name) WHERE error_class IS NOT NULL;

CREATE TABLE emberd.job_calls (
    job uuid NOT NULL REFERENCES emberd.jobs (id) ON DELETE CASCADE,
    nr bigint NOT NULL,
    step bigint NOT NULL,
    call bigint NOT NULL,
    -- the item's when it was made
    fence bigint NOT NULL,
    reserved bigint NOT NULL CHECK (reserved >= 0),
    -- null while it is on its way
    spent bigint CHECK (spent >= 0),
    tokens bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL,
    PRIMARY KEY (job, nr, step, call)
);
CREATE INDEX job_calls_out ON emberd.job_calls (job, nr, step, call) WHERE spent IS NULL;

CREATE TABLE emberd.answers (
    digest bytea NOT NULL PRIMARY KEY,
    body text NOT NULL,
    cost bigint NOT NULL,
    at bigint NOT NULL
);
CREATE INDEX answers_at ON emberd.answers (at);

CREATE TABLE emberd.rules (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE,
    version bigint NOT NULL,
    config jsonb NOT NULL,
    is_enabled boolean NOT NULL,
    budget bigint CHECK (budget >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    spent bigint NOT NULL DEFAULT 0 CHECK (spent >= 0),
    tokens bigint NOT NULL DEFAULT 0,
    created_by uuid NOT NULL REFERENCES public.profiles (id),
    created_at bigint NOT NULL
);

-- A call of a paid endpoint for a rule; cut off if it is not settled by `until`.
CREATE TABLE emberd.rule_calls (
    rule uuid NOT NULL REFERENCES emberd.rules (id) ON DELETE CASCADE,
    call bigint NOT NULL,
    until bigint NOT NULL,
    reserved bigint NOT NULL CHECK (reserved >= 0),
    spent bigint CHECK (spent >= 0),
    tokens bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL,
    PRIMARY KEY (rule, call)
);
CREATE INDEX rule_calls_out ON emberd.rule_calls (until) WHERE spent IS NULL;
CREATE INDEX rule_calls_at ON emberd.rule_calls (at) WHERE spent IS NOT NULL;

-- What was decided of each trace by each rule; a trace that changed after it was scored is decided again, under the next epoch.
CREATE TABLE emberd.decisions (
    rule uuid NOT NULL REFERENCES emberd.rules (id) ON DELETE CASCADE,
    trace_id bytea NOT NULL,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    decision text NOT NULL,
    detail text,
    -- how many spans were seen
    spans bigint NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (rule, trace_id)
);
CREATE INDEX decisions_trace ON emberd.decisions (trace_id);
CREATE INDEX decisions_at ON emberd.decisions (at);

-- Scores of traces by rules; the last one stands.
CREATE TABLE emberd.trace_scores (
    trace_id bytea NOT NULL,
    rule uuid NOT NULL REFERENCES emberd.rules (id) ON DELETE CASCADE,
    name text NOT NULL,
    epoch bigint NOT NULL,
    version text NOT NULL,
    -- what it is of: trace, session, or a span's id
    subject text NOT NULL,
    score double precision,
    label text,
    explanation text,
    direction text NOT NULL CHECK (direction IN ('maximize', 'minimize', 'neutral')),
    metadata jsonb NOT NULL DEFAULT '{}',
    error_class text,
    error text,
    cost bigint NOT NULL DEFAULT 0,
    at bigint NOT NULL,
    PRIMARY KEY (trace_id, rule, name),
    CHECK ((error_class IS NULL) = (error IS NULL)),
    CHECK (error_class IS NULL OR (score IS NULL AND label IS NULL))
);
CREATE INDEX trace_scores_at ON emberd.trace_scores (at);

-- What Phoenix is still to be told. A row goes when it was told; one refused for good stays, with the reason.
CREATE TABLE emberd.outbox (
    kind text NOT NULL,
    key text NOT NULL,
    body jsonb NOT NULL,
    -- raised by each put; who told an older one does not take the newer away
    version bigint NOT NULL DEFAULT 1,
    attempts bigint NOT NULL DEFAULT 0,
    due_at bigint NOT NULL,
    refused text,
    PRIMARY KEY (kind, key)
);
CREATE INDEX outbox_due ON emberd.outbox (due_at) WHERE refused IS NULL;

-- Whether an evaluation ran on a dataset, which its deletion asks.
CREATE INDEX idx_dataset_runs_dataset_id ON public.evaluation_dataset_runs (dataset_id);
