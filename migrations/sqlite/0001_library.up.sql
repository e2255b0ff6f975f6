-- The prompt library's tables. Times are RFC 3339 in UTC with six digits after the second, always 27 characters, so that they sort
-- as text; UUIDs are lower-case text; what is jsonb on PostgreSQL is text that is valid JSON.

CREATE TABLE profiles (
    id TEXT NOT NULL PRIMARY KEY,
    email TEXT NOT NULL CHECK (length(email) BETWEEN 1 AND 320),
    name TEXT,
    role TEXT NOT NULL DEFAULT 'member',
    department TEXT
) STRICT;
CREATE UNIQUE INDEX idx_profiles_email ON profiles (email, id, name, role, department);

-- Whoever calls where no identity is configured.
INSERT INTO profiles (id, email, name, role)
VALUES ('00000000-0000-0000-0000-000000000000', 'local@localhost', 'local administrator', 'admin');

CREATE TABLE prompts (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT NOT NULL CHECK (length(title) BETWEEN 1 AND 500),
    content TEXT NOT NULL DEFAULT '',
    created_by TEXT REFERENCES profiles (id) ON DELETE SET NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CHECK (length(created_at) = 27)
) STRICT;
CREATE INDEX idx_prompts_title ON prompts (title, created_at, id);
CREATE INDEX idx_prompts_created_at ON prompts (created_at DESC, id DESC);

-- The reserved prompt that traces belong to while they name none that exists.
INSERT INTO prompts (id, title) VALUES ('00000000-0000-0000-0000-000000000000', 'unassigned');
