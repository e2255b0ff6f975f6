DROP TABLE phoenix_alerts;
DROP TABLE experiments;
DROP TABLE evaluation_templates;
DROP TABLE evaluation_dataset_runs;
DROP TABLE evaluation_datasets;
DROP TABLE prompt_evaluations;
