"""The HTTP interface: one file per resource. Reads the records; never touches the learner."""
