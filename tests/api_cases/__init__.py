"""Tables about the API that unit tests (Pydantic, the loader) and integration tests (the real API server, kubectl) share."""
