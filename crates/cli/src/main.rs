//! The `tightrope` command: parses arguments and calls the library crates.
#![forbid(unsafe_code)]
fn main() {}
