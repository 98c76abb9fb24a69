"""ARC: science questions of school exams, easy and challenging."""
