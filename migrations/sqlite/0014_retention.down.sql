DROP INDEX idx_metrics_timestamp;
DROP INDEX emberd_rollups_bucket;
DROP INDEX emberd_outbox_refused;
DROP INDEX emberd_jobs_closed;
DROP TABLE emberd_forgotten;
