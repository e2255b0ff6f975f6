DROP TABLE prompts;
DROP TABLE profiles;
