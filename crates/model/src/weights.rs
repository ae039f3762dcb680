//! The layout of a model's parameters.

use crate::{
    Architecture, BaseStorage, ModelError,
    checkpoint::Stored,
    lora::AdapterConfig,
    parameter::{Parameter, ParameterKind},
    parts::{Held, HeldMut, Layer, Linear, Nf4, Norm},
    plan::Allocate,
};
use tightrope_device::DType;

/// Names of the parameters outside of layers, in Transformers and in GGUF files.
pub(crate) const NAMES: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// All parameters.
#[derive(Debug)]
pub(crate) struct Weights<T> {
    pub embedding: Parameter<T>,
    pub layers: Vec<Layer<T>>,
    pub norm: Norm<T>,
    /// `None` if the head is the embedding.
    pub head: Option<Parameter<T>>,
}

/// Settings of the layout of parameters besides the architecture.
pub(crate) struct Layout<'a> {
    /// Whether all parameters of the model are trained (and kept in f32).
    pub full: bool,
    /// The adapter, if there is one.
    pub adapter: Option<&'a AdapterConfig>,
    /// Whether the adapter is trained.
    pub adapter_trained: bool,
    /// Storage of the frozen weights of linear layers.
    pub base: BaseStorage,
    /// Storage of a parameter in files; frozen matrices and embeddings keep it.
    pub stored: &'a dyn Fn(&str) -> Stored,
}

/// Lays out parameters; their names are those of Transformers.
pub(crate) struct Builder<'a, A> {
    pub allocate: &'a mut A,
    pub architecture: &'a Architecture,
    pub layout: Layout<'a>,
}

impl<T, A: Allocate<Buffer = T>> Builder<'_, A> {
    /// All parameters.
    pub(crate) fn weights(&mut self) -> Result<Weights<T>, ModelError> {
        let architecture = self.architecture;
        let table = [architecture.vocabulary, architecture.hidden];
        let embedding = "model.embed_tokens.weight".to_string();
        let embedding = self.parameter(embedding, ParameterKind::Embedding, &table)?;
        let layers = (0..architecture.layers())
            .map(|layer| Layer::lay_out(self, layer))
            .collect::<Result<_, _>>()?;
        let norm = Norm::lay_out(self, "model.norm".into())?;
        let head = match architecture.tied_head {
            true => None,
            false => {
                let head = "lm_head.weight".to_string();
                Some(self.parameter(head, ParameterKind::Head, &table)?)
            }
        };
        Ok(Weights {
            embedding,
            layers,
            norm,
            head,
        })
    }

    /// Lays out a parameter of the model.
    pub(crate) fn parameter(
        &mut self,
        name: String,
        kind: ParameterKind,
        shape: &[usize],
    ) -> Result<Parameter<T>, ModelError> {
        let full = self.layout.full;
        let stored = match full {
            true => DType::F32,
            false => (self.layout.stored)(&name).dtype(),
        };
        let dtype = match kind {
            ParameterKind::Matrix | ParameterKind::Embedding | ParameterKind::Head => stored,
            _ => DType::F32,
        };
        Parameter::allocate(self.allocate, name, kind, (dtype, stored), shape, full)
    }
}

impl<T> Weights<T> {
    fn held(&self) -> Vec<Held<'_, T>> {
        let mut all = vec![Held::Base(&self.embedding)];
        self.layers.iter().for_each(|layer| layer.held(&mut all));
        self.norm.held(&mut all);
        all.extend(self.head.as_ref().map(Held::Base));
        all
    }

    fn held_mut(&mut self) -> Vec<HeldMut<'_, T>> {
        let mut all = vec![HeldMut::Base(&mut self.embedding)];
        let layers = self.layers.iter_mut();
        layers.for_each(|layer| layer.held_mut(&mut all));
        self.norm.held_mut(&mut all);
        all.extend(self.head.as_mut().map(HeldMut::Base));
        all
    }

    /// Parameters of the model, without weights in NF4.
    pub(crate) fn base(&self) -> impl Iterator<Item = &Parameter<T>> {
        self.held().into_iter().filter_map(|held| match held {
            Held::Base(parameter) => Some(parameter),
            Held::Adapter(_) | Held::Nf4(_) => None,
        })
    }

    /// Parameters of the model, without weights in NF4.
    pub(crate) fn base_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        self.held_mut().into_iter().filter_map(|held| match held {
            HeldMut::Base(parameter) => Some(parameter),
            HeldMut::Adapter(_) | HeldMut::Nf4(_) => None,
        })
    }

    /// The weights in NF4.
    pub(crate) fn nf4(&self) -> impl Iterator<Item = &Nf4<T>> {
        self.held().into_iter().filter_map(|held| match held {
            Held::Nf4(weight) => Some(weight),
            Held::Base(_) | Held::Adapter(_) => None,
        })
    }

    /// The weights in NF4.
    pub(crate) fn nf4_mut(&mut self) -> impl Iterator<Item = &mut Nf4<T>> {
        self.held_mut().into_iter().filter_map(|held| match held {
            HeldMut::Nf4(weight) => Some(weight),
            HeldMut::Base(_) | HeldMut::Adapter(_) => None,
        })
    }

    /// The adapter's parameters.
    pub(crate) fn adapter(&self) -> impl Iterator<Item = &Parameter<T>> {
        self.held().into_iter().filter_map(|held| match held {
            Held::Adapter(parameter) => Some(parameter),
            Held::Base(_) | Held::Nf4(_) => None,
        })
    }

    /// The adapter's parameters.
    pub(crate) fn adapter_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        self.held_mut().into_iter().filter_map(|held| match held {
            HeldMut::Adapter(parameter) => Some(parameter),
            HeldMut::Base(_) | HeldMut::Nf4(_) => None,
        })
    }

    /// Every linear layer of the decoder.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear<T>> {
        self.layers.iter().flat_map(Layer::linears)
    }
}
