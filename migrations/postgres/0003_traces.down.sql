DROP TABLE public.prompt_performance_metrics;
DROP TABLE public.prompt_traces;
