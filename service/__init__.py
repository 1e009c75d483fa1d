"""Everything behind the wire: ingest, journal, worker, checkpoints, publishing and the HTTP interface."""

import os

# Threads of torch that wait for each other sleep instead of spinning: where other programs share the cores, spinning
# makes every operation several times slower. It counts only when said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
