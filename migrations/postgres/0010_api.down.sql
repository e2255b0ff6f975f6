DROP TABLE emberd.asked;
DROP TABLE emberd.secrets;
