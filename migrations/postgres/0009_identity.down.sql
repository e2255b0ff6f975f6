DROP TABLE emberd.revoked;
DROP TABLE emberd.passwords;
