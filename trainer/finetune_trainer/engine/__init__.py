"""Training: from features and a model to its best weights, and what these say. Knows no task by name."""
