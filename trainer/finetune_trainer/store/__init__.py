"""Object storage: the folder of a run, who may write to it, checkpoints that are complete or absent, and the result.

folder = open_folder(run.run.uri, run.spec.storage)
run_folder = RunFolder(folder, run.run)
adopted = run_folder.finished()                                  # an equal finished result, or None
with Claim.take(folder, owner=run.owner, holder=name) as claim:
    attempt = run_folder.begin_attempt(name)
    with Checkpoints(folder, fingerprint=run.run.fingerprint, keep=2, may_write=claim.check) as checkpoints:
        resumed = checkpoints.resume(state_dir, best_dir)        # the newest complete one, or None
        ...
        checkpoints.commit(dir, step=800, attempt=attempt, facts={...}, best=best_dir)
        checkpoints.flush()
    run_folder.save_attempt(attempt, {"log.txt": log, "metrics.jsonl": metrics})
    run_folder.promote(results_dir, result, may_write=claim.check)   # result.json last
    run_folder.clean()                                           # a finished run needs no checkpoints
"""
