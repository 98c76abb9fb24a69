"""What follows an occupation: female or male words."""
