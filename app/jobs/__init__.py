"""A job's life: states, tables, leases, events. The only place with SQL."""
