DROP TABLE public.user_sessions;
DROP TABLE public.daily_metrics;
DROP TABLE public.api_usage_logs;
DROP TABLE public.analytics_events;
