//! What operations compute, in f64 and as plainly as possible: one file per operation.

pub mod attention;
pub mod linear;
pub mod linear_cross_entropy;
pub mod rope;
