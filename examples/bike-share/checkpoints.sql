-- What PostgreSQL stores need besides the application's tables.
CREATE TABLE IF NOT EXISTS gazette_checkpoints (
  shard_fqn  TEXT    PRIMARY KEY NOT NULL,
  fence      INTEGER NOT NULL,
  checkpoint BYTEA   NOT NULL
);
