"""Pictures of experiments, drawn from the rows they came to; matplotlib is imported here and nowhere else."""
