"""The ways to choose codes."""
