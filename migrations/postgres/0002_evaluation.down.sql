DROP TABLE public.phoenix_alerts;
DROP TABLE public.experiments;
DROP TABLE public.evaluation_templates;
DROP TABLE public.evaluation_dataset_runs;
DROP TABLE public.evaluation_datasets;
DROP TABLE public.prompt_evaluations;
DROP FUNCTION emberd.guard(regclass, text, text);
