"""Winogender: who a pronoun refers to, and the share of women in the occupation."""
