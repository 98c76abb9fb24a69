"""MMLU: questions of 57 subjects, by likelihood and with generated answers."""
