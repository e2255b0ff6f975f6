DROP INDEX idx_profiles_id;
