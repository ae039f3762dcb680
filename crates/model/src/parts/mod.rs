//! What a decoder layer is made of, a file for each part: its weights, what its backward pass needs of
//! its forward pass, its work space, how all of them are laid out, forward and backward.

mod attention;
mod layer;
mod linear;
mod mlp;
mod nf4;
mod norm;

pub(crate) use layer::{BackwardWork, Layer, Saved, Work};
pub(crate) use linear::{Adapter, Linear};
pub(crate) use nf4::{HostScales, Nf4, host};
pub(crate) use norm::{Norm, Stream};

use crate::{ModelError, parameter::Parameter};

/// What a part holds, for whoever goes through all of a model.
pub(crate) enum Held<'a, T> {
    /// A parameter of the model.
    Base(&'a Parameter<T>),
    /// A factor of an adapter.
    Adapter(&'a Parameter<T>),
    /// A frozen weight in NF4.
    Nf4(&'a Nf4<T>),
}

/// [`Held`], to be written to.
pub(crate) enum HeldMut<'a, T> {
    /// A parameter of the model.
    Base(&'a mut Parameter<T>),
    /// A factor of an adapter.
    Adapter(&'a mut Parameter<T>),
    /// A frozen weight in NF4.
    Nf4(&'a mut Nf4<T>),
}

/// What a layer has, with the buffer that was laid out for it. A buffer may be there in vain, since
/// layers share them; that one is lacking is an error, and never means that the layer has nothing.
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
    /// Whether it has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        match self {
            Held::Base(parameter) | Held::Adapter(parameter) => parameter.gradient.is_some(),
            Held::Nf4(_) => false,
        }
    }
}
