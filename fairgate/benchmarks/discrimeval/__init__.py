"""DiscrimEval: is a decision granted, whoever asks for it?"""
