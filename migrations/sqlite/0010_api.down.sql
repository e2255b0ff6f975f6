DROP TABLE emberd_asked;
DROP TABLE emberd_secrets;
