DROP TABLE prompt_performance_metrics;
DROP TABLE prompt_traces;
