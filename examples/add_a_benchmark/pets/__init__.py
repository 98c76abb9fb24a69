"""Pets: is the sentence about a cat likelier than the same one about a dog?"""
