DROP TABLE emberd_released;
DROP TABLE emberd_origins;
DROP TABLE emberd_ledger;
