import os

# As in service: it counts only when said before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
