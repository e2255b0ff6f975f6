DROP INDEX public.idx_metrics_timestamp;
DROP INDEX emberd.rollups_bucket;
DROP INDEX emberd.outbox_refused;
DROP INDEX emberd.jobs_closed;
DROP TABLE emberd.forgotten;
