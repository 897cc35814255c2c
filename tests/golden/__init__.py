"""What earlier versions left behind, as they left it."""
