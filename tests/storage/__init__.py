"""What tests of the store share: folders, saves and a store that fails on demand."""
