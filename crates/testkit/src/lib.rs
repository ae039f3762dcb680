//! What tests of several crates share: awkward inputs, elementwise comparison, finite differences.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod compare;
mod random;

pub use compare::{assert_close, relative_distance};
pub use random::Random;
