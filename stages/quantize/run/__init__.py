"""One run of the quantizer: what it needs, what a killed run goes on from, what it writes."""
