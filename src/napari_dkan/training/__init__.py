"""Training, evaluation and fine-tuning of DKAN networks. Importing this package loads no heavy library."""
