//! Benchmark suites: what is swept, and how a dated result row is written.
#![forbid(unsafe_code)]
