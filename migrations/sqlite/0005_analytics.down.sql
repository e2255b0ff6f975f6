DROP TABLE user_sessions;
DROP TABLE daily_metrics;
DROP TABLE api_usage_logs;
DROP TABLE analytics_events;
