"""Result files: saved results, exports for other programs, and figures."""
