"""DecodingTrust fairness: predicted income of women and men (Adult)."""
