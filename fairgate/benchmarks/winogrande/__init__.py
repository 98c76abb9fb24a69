"""WinoGrande: which of two nouns fills a blank."""
