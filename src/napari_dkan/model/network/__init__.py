"""The DKAN network: configuration, building blocks, ensemble and optimisation for inference.

Importing the package loads nothing; all modules but `dkan_config` import torch.
"""
