"""Resolve gene symbols, and describe genes from tables, NCBI and language models."""
