"""Approximate posteriors over the weights of populations, and what they predict: a method is a module, all with the same verbs."""
