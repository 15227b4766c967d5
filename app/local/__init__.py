"""The one-machine stack: embedded Postgres and Valkey, a local Hub, and a supervisor over all parts."""
