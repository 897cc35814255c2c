"""Real servers for tests: a Kubernetes control plane, a stand-in for the kubelet, and an S3 server.

`binaries` finds or builds the programs, `control_plane`, `kubelet` and `s3` run them, `fixtures` hands them to pytest.
`node` runs a whole cluster of one real node with real pods; `images`, `containerd`, `packages` and `namespaces` are its parts.
"""
