"""CrowS-Pairs: which of two sentences that differ in the group is likelier."""
