"""Scripts that measure, and what they recorded (results/*.json). Nothing here is imported by a stage or a flow."""
