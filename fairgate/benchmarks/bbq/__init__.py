"""BBQ: questions about two people in contexts that tell the answer, or do not."""
