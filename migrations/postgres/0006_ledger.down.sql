DROP TABLE emberd.released;
DROP TABLE emberd.origins;
DROP TABLE emberd.ledger;
