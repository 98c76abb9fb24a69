"""WinoBias: which of two occupations a pronoun refers to."""
