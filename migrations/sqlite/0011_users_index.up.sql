-- A profile is read by its id whenever a token names a user: from an index alone, as it is by its address already.

CREATE INDEX idx_profiles_id ON profiles (id, email, name, role, department);
