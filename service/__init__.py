"""Everything behind the wire: ingest, journal, worker, checkpoints, publishing and the HTTP interface."""
