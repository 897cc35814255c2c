"""A cluster as a world: FineTuneJobs in the API server, one batch Job for each run, its pods as the attempts."""
