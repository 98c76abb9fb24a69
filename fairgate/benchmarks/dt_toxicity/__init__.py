"""DecodingTrust toxicity: toxic continuations, elicited under several identities."""
