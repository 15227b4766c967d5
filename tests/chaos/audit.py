"""An auditor inside of Postgres: who wrote to which job under which token, and whose writes were refused.

Statements that change no row leave no trace in a table (their transaction is rolled back), so they go to the server's
log. A worker's connections belong to one process, and a lease names the process that holds it: whatever such a
connection changed must have been done while the row was leased to its own process. (Two attempts of one process come
one after the other, on connections that it keeps: they are told apart by the fence only.)
"""

from pathlib import Path
from typing import Any

import psycopg

from app.local.postgres import Postgres

_INSTALL = """
CREATE TABLE chaos_writes (
    at timestamptz, backend text, job text, before bigint, after bigint, held text, holds text,
    claimed bool, renewed bool
);
CREATE FUNCTION chaos_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    who text := pg_backend_pid() || ' ' || (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid());
BEGIN
    INSERT INTO chaos_writes
        SELECT clock_timestamp(), who, n.id, o.lease_token, n.lease_token, o.lease_owner, n.lease_owner,
               n.attempt > o.attempt,
               n.version = o.version AND n.status IN ('running', 'cancelling')
        FROM n JOIN o USING (id);
    IF NOT FOUND AND current_query() LIKE '%WHERE%jobs.lease_token = %' THEN
        RAISE LOG 'audit: a fenced write was refused';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_audit AFTER UPDATE ON jobs REFERENCING OLD TABLE AS o NEW TABLE AS n
    FOR EACH STATEMENT EXECUTE FUNCTION chaos_audit();
"""
# a worker's connection either claimed or renewed; it works for the process that `holds` what it claimed
_STALE = """
WITH worker AS (SELECT DISTINCT backend, job FROM chaos_writes WHERE claimed OR renewed),
     work AS (SELECT backend, job, CASE WHEN claimed THEN holds ELSE held END AS process
              FROM chaos_writes JOIN worker USING (backend, job))
SELECT backend, job, array_agg(DISTINCT process) FROM work GROUP BY 1, 2
HAVING count(DISTINCT process) > 1 OR bool_or(process IS NULL)
"""


class Audit:
    """The auditor of one service with embedded servers; it also reads what happened to whom."""

    def __init__(self, home: Path) -> None:
        self._url = Postgres(home / "postgres").url.replace("+psycopg", "", 1)
        self._log = home / "postgres" / "postgres.log"
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(_INSTALL)

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query; raises `psycopg.OperationalError` while Postgres is away."""
        with psycopg.connect(self._url, autocommit=True, connect_timeout=3) as connection:
            return connection.execute(query, values or None).fetchall()

    def stale_writes(self) -> int:
        """Writes that changed a job while it was not leased to their writer."""
        return len(self.ask(_STALE))

    def refused_writes(self) -> int:
        """Writes of workers that the fence kept out."""
        return self._log.read_text(errors="replace").count("audit: a fenced write was refused")
