//! Runs kernels: warps in lock-step by lowest program counter, blocks distributed over threads.
mod access;
mod atomic;
mod barrier;
mod block;
mod clock;
mod copy_async;
mod exchange;
mod launch;
mod matrix;
mod release;
mod step;
mod warp;

pub(crate) use launch::launch;
pub use launch::{BlockSelection, Checks, LaunchConfig, LaunchReport};
