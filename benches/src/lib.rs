//! Benchmarks of kernels and pipelines.
