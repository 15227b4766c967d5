"""Words to callers' own servers: signed, and unable to reach inside."""
