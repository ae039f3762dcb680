//! One file an algorithm; `algorithm.rs` registers them.

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

pub use best_fit::BestFit;
pub use bucketed::Bucketed;
pub use first_fit::FirstFit;
pub use in_order::InOrder;
pub use lpfhp::Lpfhp;
pub use nnlshp::Nnlshp;
pub use spfhp::Spfhp;
pub use streaming::{OpenPack, Stream, StreamError, Streaming};
pub use wrapped::Wrapped;
