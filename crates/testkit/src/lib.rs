//! Code that tests of several crates share: oracles, awkward inputs, elementwise comparison, finite
//! differences.
#![deny(missing_docs)]

mod compare;
mod devices;
pub mod documents;
mod finite_difference;
pub mod oracle;
mod random;
mod special;

pub use compare::{assert_close, relative_distance};
pub use devices::{
    cpus, cuda, cuda_with_small_limits, has_driver, is_emulated, link_libraries, rounded, rounding,
    tensor, unit,
};
pub use finite_difference::finite_difference;
pub use random::{Random, widen};
pub use special::erf;
