"""DiscrimEvalGen: who of several people is chosen, with the option not to answer."""
