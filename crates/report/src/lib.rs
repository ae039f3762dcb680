//! Numbers, tables and charts for people.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod chart;
pub mod numbers;
#[cfg(feature = "table")]
pub mod table;
