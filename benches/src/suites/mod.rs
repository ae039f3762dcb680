//! What is swept: one file for each suite.

pub mod packing;
pub mod step;
