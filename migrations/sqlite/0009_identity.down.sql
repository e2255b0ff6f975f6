DROP TABLE emberd_revoked;
DROP TABLE emberd_passwords;
