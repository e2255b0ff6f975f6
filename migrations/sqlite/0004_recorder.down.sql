DROP TRIGGER emberd_forget_prompt;
DROP VIEW prompt_performance_summary;
DROP TABLE emberd_totals;
DROP TABLE emberd_published;
DROP TABLE emberd_dirty;
DROP TABLE emberd_rollups;
DROP TABLE emberd_trace_state;
DROP TABLE emberd_cursors;
