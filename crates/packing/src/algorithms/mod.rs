//! One file for each algorithm; `algorithm.rs` registers them.

mod best_fit;
mod bucketed;
mod first_fit;
mod in_order;
mod lpfhp;
mod nnls;
mod nnlshp;
mod open_packs;
mod spfhp;
mod streaming;
mod wrapped;

pub(crate) use best_fit::BestFit;
pub(crate) use bucketed::Bucketed;
pub(crate) use first_fit::FirstFit;
pub(crate) use in_order::InOrder;
pub(crate) use lpfhp::Lpfhp;
pub(crate) use nnlshp::Nnlshp;
pub(crate) use spfhp::Spfhp;
pub(crate) use streaming::Streaming;
pub use streaming::{OpenPack, Stream, StreamError};
pub(crate) use wrapped::Wrapped;
