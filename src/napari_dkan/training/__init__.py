"""Training, evaluation and fine-tuning of DKAN networks; importing it loads no heavy library."""
