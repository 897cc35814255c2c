"""Three worlds behind one protocol: `kube` (a cluster), `local` (a folder and subprocesses), `fake` (in memory)."""
