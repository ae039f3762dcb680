//! The tests of the crate as its users see it, in one binary: linking it is what takes time.

mod common;
mod demo;
mod errors;
mod formats;
mod layouts;
mod limits;
mod masks;
mod templates;
mod tokenizers;
