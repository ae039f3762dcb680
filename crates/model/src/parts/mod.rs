//! Parts of a decoder layer, one file for each: weights, values kept for the backward pass, work
//! space, layout, forward and backward.

mod adapter;
mod attention;
mod dora;
mod embedding;
mod layer;
mod linear;
mod mlp;
mod nf4;
mod norm;
mod rows;
mod start;

pub(crate) use adapter::Adapter;
pub(crate) use dora::Dora;
pub(crate) use embedding::EmbeddingAdapter;
pub(crate) use layer::{BackwardWork, Layer, Saved, Work, module_names};
pub(crate) use linear::Linear;
pub(crate) use nf4::{HostScales, Nf4, host};
pub(crate) use norm::{Norm, Stream};
pub(crate) use rows::{OfTokens, Rows};
pub(crate) use start::Start;

use crate::{ModelError, parameter::Parameter};

/// Values that a part holds, for code that visits the whole model.
pub(crate) enum Held<'a, T> {
    /// A parameter of the model.
    Base(&'a Parameter<T>),
    /// A parameter of the adapter.
    Adapter(&'a Parameter<T>),
    /// A frozen weight in NF4.
    Nf4(&'a Nf4<T>),
}

/// Like [`Held`], for writing.
pub(crate) enum HeldMut<'a, T> {
    /// A parameter of the model.
    Base(&'a mut Parameter<T>),
    /// A parameter of the adapter.
    Adapter(&'a mut Parameter<T>),
    /// A frozen weight in NF4.
    Nf4(&'a mut Nf4<T>),
}

/// Pairs a part of a layer with the buffer that was laid out for it. A buffer may be unused,
/// because layers share buffers; a missing buffer is an error, and never means that the layer lacks
/// the part.
fn with_buffer<P, B>(
    part: Option<P>,
    buffer: Option<B>,
    what: &'static str,
) -> Result<Option<(P, B)>, ModelError> {
    match (part, buffer) {
        (None, _) => Ok(None),
        (Some(part), Some(buffer)) => Ok(Some((part, buffer))),
        (Some(_), None) => Err(ModelError::NoBuffer(what)),
    }
}

impl<T> Held<'_, T> {
    /// Whether the value has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        match self {
            Held::Base(parameter) | Held::Adapter(parameter) => parameter.gradient.is_some(),
            Held::Nf4(_) => false,
        }
    }
}
