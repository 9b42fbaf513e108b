"""Networks: configuration, building blocks, DKAN, ensemble and optimisation for inference.

Importing the package loads nothing; all modules but those of configurations import torch.
"""
