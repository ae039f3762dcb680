//! Operations computed in f64 and as plainly as possible, one file for each.

pub mod adamw;
pub mod attention;
pub mod glu;
pub mod linear;
pub mod linear_cross_entropy;
pub mod rms_norm;
pub mod rope;
