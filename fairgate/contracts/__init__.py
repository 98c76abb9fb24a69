"""The files that stages hand to each other, validated on reading."""
