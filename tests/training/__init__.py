"""What the tests of training share: tiny models of real architectures, real sentences, and attempts as real processes."""
