"""How much memory a job takes, known before anything of it is loaded."""
