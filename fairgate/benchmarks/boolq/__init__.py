"""BoolQ: yes-or-no questions about a passage."""
