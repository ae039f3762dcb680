//! The layout of a model's parameters.

use crate::{
    Adapters, Architecture, BaseStorage, ModelError,
    checkpoint::{EMBEDDING, Stored},
    lora::AdapterConfig,
    parameter::{Parameter, ParameterKind, Replaceable},
    parts::{Adapter, EmbeddingAdapter, Held, HeldMut, Layer, Linear, Nf4, Norm, Rows},
    plan::{Allocate, PlannedBuffer, Purpose},
};
use tightrope_device::{DType, Device, Tensor};

/// Names of the parameters outside of layers, in Transformers and in GGUF files.
pub(crate) const NAMES: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// All parameters.
#[derive(Debug)]
pub(crate) struct Weights<T> {
    pub embedding: Replaceable<T>,
    /// Rows of the embedding that are trained alone.
    pub embedding_rows: Option<Rows<T>>,
    pub embedding_adapter: Option<EmbeddingAdapter<T>>,
    pub layers: Vec<Layer<T>>,
    pub norm: Norm<T>,
    pub head: Head<T>,
}

/// The output projection.
#[derive(Debug)]
pub(crate) struct Head<T> {
    /// `None` if the head is the embedding.
    pub own: Option<Parameter<T>>,
    /// The adapter's head, if it replaces the model's.
    pub copy: Option<Parameter<T>>,
    /// Rows of a head of its own that are trained alone.
    pub rows: Option<Rows<T>>,
    pub adapter: Option<Adapter<T>>,
    /// Whether the head is also the adapter's embedding.
    shared: bool,
}

impl<T> Head<T> {
    /// Whether the model's head is its embedding.
    pub(crate) fn is_tied(&self) -> bool {
        self.own.is_none()
    }
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
        let hidden = architecture.hidden;
        let embedding = self.replaceable(EMBEDDING.into(), ParameterKind::Embedding, &table)?;
        let embedding_rows = Rows::lay_out(self, EMBEDDING, ParameterKind::Embedding, hidden)?;
        let sizes = (architecture.vocabulary, hidden);
        let embedding_adapter = EmbeddingAdapter::lay_out(self, sizes)?;
        let layers = (0..architecture.layers())
            .map(|layer| Layer::lay_out(self, layer))
            .collect::<Result<_, _>>()?;
        let norm = Norm::lay_out(self, "model.norm".into())?;
        let (name, shape) = architecture.head_tensor();
        let own = match architecture.tied_head {
            true => None,
            false => Some(self.parameter(name.to_owned(), ParameterKind::Head, &shape)?),
        };
        let head = Head {
            own,
            copy: self.copy(name, ParameterKind::Head, &shape)?,
            rows: Rows::lay_out(self, name, ParameterKind::Head, hidden)?,
            adapter: Adapter::lay_out(self, name.trim_end_matches(".weight"), (hidden, shape[0]))?,
            shared: self
                .layout
                .adapter
                .is_some_and(AdapterConfig::shares_embedding),
        };
        Ok(Weights {
            embedding,
            embedding_rows,
            embedding_adapter,
            layers,
            norm,
            head,
        })
    }

    /// Lays out a parameter of the model.
    fn parameter(
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
        let (dtypes, place) = ((dtype, stored), (Purpose::Weights, full));
        Parameter::allocate(self.allocate, name, kind, dtypes, shape, place)
    }

    /// Lays out the weight of a linear layer.
    pub(crate) fn matrix(
        &mut self,
        name: String,
        shape: &[usize],
    ) -> Result<Parameter<T>, ModelError> {
        self.parameter(name, ParameterKind::Matrix, shape)
    }

    /// Lays out a parameter of the adapter, by its name in the adapter's file.
    pub(crate) fn of_adapter(
        &mut self,
        name: String,
        kind: ParameterKind,
        shape: &[usize],
    ) -> Result<Parameter<T>, ModelError> {
        let place = (Purpose::Adapter, self.layout.adapter_trained);
        let dtypes = (DType::F32, DType::F32);
        Parameter::allocate(self.allocate, name, kind, dtypes, shape, place)
    }

    /// Lays out a factor that an adapter starts from, which is never trained.
    pub(crate) fn start(
        &mut self,
        module: &str,
        letter: &str,
        shape: &[usize],
    ) -> Result<T, ModelError> {
        self.allocate.allocate(PlannedBuffer {
            name: format!("{module}: initial {letter}"),
            purpose: Purpose::Adapter,
            dtype: DType::F32,
            shape: shape.to_vec(),
            trained: None,
        })
    }

    /// Lays out a parameter of the model, and the adapter's copy if it has one.
    pub(crate) fn replaceable(
        &mut self,
        name: String,
        kind: ParameterKind,
        shape: &[usize],
    ) -> Result<Replaceable<T>, ModelError> {
        let copy = self.copy(&name, kind, shape)?;
        let base = self.parameter(name, kind, shape)?;
        Ok(Replaceable { base, copy })
    }

    /// Lays out the adapter's copy of a parameter, if it has one.
    fn copy(
        &mut self,
        name: &str,
        kind: ParameterKind,
        shape: &[usize],
    ) -> Result<Option<Parameter<T>>, ModelError> {
        let in_file = self
            .layout
            .adapter
            .and_then(|adapter| adapter.copy_of(name));
        in_file
            .map(|in_file| self.of_adapter(in_file.to_owned(), kind, shape))
            .transpose()
    }
}

impl<T> Weights<T> {
    fn held(&self) -> Vec<Held<'_, T>> {
        let mut all = Vec::new();
        self.embedding.held(&mut all);
        let rows = [&self.embedding_rows, &self.head.rows]
            .into_iter()
            .flatten();
        all.extend(rows.map(|rows| Held::Adapter(&rows.trained)));
        if let Some(EmbeddingAdapter { a, b, .. }) = &self.embedding_adapter {
            all.extend([a, b].map(Held::Adapter));
        }
        self.layers.iter().for_each(|layer| layer.held(&mut all));
        self.norm.held(&mut all);
        all.extend(self.head.own.as_ref().map(Held::Base));
        all.extend(self.head.copy.as_ref().map(Held::Adapter));
        if let Some(Adapter { a, b, .. }) = &self.head.adapter {
            all.extend([a, b].map(Held::Adapter));
        }
        all
    }

    fn held_mut(&mut self) -> Vec<HeldMut<'_, T>> {
        let mut all = Vec::new();
        self.embedding.held_mut(&mut all);
        let rows = [&mut self.embedding_rows, &mut self.head.rows];
        let rows = rows.into_iter().flatten();
        all.extend(rows.map(|rows| HeldMut::Adapter(&mut rows.trained)));
        if let Some(EmbeddingAdapter { a, b, .. }) = &mut self.embedding_adapter {
            all.extend([a, b].map(HeldMut::Adapter));
        }
        let layers = self.layers.iter_mut();
        layers.for_each(|layer| layer.held_mut(&mut all));
        self.norm.held_mut(&mut all);
        all.extend(self.head.own.as_mut().map(HeldMut::Base));
        all.extend(self.head.copy.as_mut().map(HeldMut::Adapter));
        if let Some(Adapter { a, b, .. }) = &mut self.head.adapter {
            all.extend([a, b].map(HeldMut::Adapter));
        }
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

    /// Every parameter of the model and of the adapter.
    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        self.held_mut().into_iter().filter_map(|held| match held {
            HeldMut::Base(parameter) | HeldMut::Adapter(parameter) => Some(parameter),
            HeldMut::Nf4(_) => None,
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

    /// Every linear layer of the decoder.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<T>> {
        self.layers.iter_mut().flat_map(Layer::linears_mut)
    }
}

impl<T> Weights<T> {
    /// The output projection that a pass uses.
    pub(crate) fn head(&self, adapters: Adapters) -> &Parameter<T> {
        let Head {
            own, copy, shared, ..
        } = &self.head;
        match (adapters, copy, own) {
            (Adapters::On, Some(copy), _) => copy,
            (Adapters::On, None, _) if *shared => self.embedding.of(Adapters::On),
            (_, _, Some(own)) => own,
            (_, _, None) => &self.embedding.base,
        }
    }

    /// The adapter of the output projection that a pass uses.
    pub(crate) fn head_adapter(&self, adapters: Adapters) -> Option<&Adapter<T>> {
        let adapter = self.head.adapter.as_ref();
        adapter.filter(|_| adapters == Adapters::On)
    }

    /// The output projection, if the adapter makes it another one than the embedding.
    pub(crate) fn untied_head(&self) -> Option<&Parameter<T>> {
        let Head {
            own, copy, shared, ..
        } = &self.head;
        let adapted = self.embedding_adapter.is_some() || self.head.adapter.is_some();
        let replaced = adapted || copy.is_some() || self.embedding.copy.is_some();
        (own.is_none() && replaced && !*shared).then(|| self.head(Adapters::On))
    }

    /// The output projection of training.
    pub(crate) fn trained_head(&mut self) -> TrainedHead<'_, T> {
        let Head {
            own,
            copy,
            rows: of_own,
            adapter,
            shared,
        } = &mut self.head;
        let (head, rows) = match (copy, own) {
            (Some(copy), _) => (copy, None),
            (None, _) if *shared => (self.embedding.trained_mut(), None),
            (None, Some(own)) => (own, of_own.as_mut()),
            (None, None) => (&mut self.embedding.base, self.embedding_rows.as_mut()),
        };
        match rows {
            Some(rows) => TrainedHead {
                value: &head.value,
                gradient: rows.trained.gradient.as_mut(),
                rows: Some(&rows.ids),
                adapter: adapter.as_mut(),
            },
            None => TrainedHead {
                value: &head.value,
                gradient: head.gradient.as_mut(),
                rows: None,
                adapter: adapter.as_mut(),
            },
        }
    }

    /// Tables of which rows are trained, with these rows.
    pub(crate) fn tables_with_rows(&self) -> impl Iterator<Item = (&Parameter<T>, &Rows<T>)> {
        let embedding = self
            .embedding_rows
            .iter()
            .map(|r| (&self.embedding.base, r));
        let head = self.head.own.as_ref().zip(self.head.rows.as_ref());
        embedding.chain(head)
    }

    /// Tables of which rows are trained, with these rows.
    pub(crate) fn tables_with_rows_mut(
        &mut self,
    ) -> impl Iterator<Item = (&mut Parameter<T>, &mut Rows<T>)> {
        let embedding = self.embedding_rows.as_mut();
        let embedding = embedding.map(|rows| (&mut self.embedding.base, rows));
        let head = self.head.own.as_mut().zip(self.head.rows.as_mut());
        embedding.into_iter().chain(head)
    }
}

/// The output projection of training.
pub(crate) struct TrainedHead<'a, T> {
    pub value: &'a T,
    /// Gradient of the projection, or of some rows of it.
    pub gradient: Option<&'a mut T>,
    /// The rows that `gradient` has; `None`: all.
    pub rows: Option<&'a [usize]>,
    pub adapter: Option<&'a mut Adapter<T>>,
}

impl<D: Device> Weights<Tensor<D>> {
    /// Writes the model's own values to the adapter's copies of parameters.
    pub(crate) fn start_copies(&mut self) -> Result<(), ModelError> {
        if let Some(copy) = &mut self.head.copy {
            let base = self.head.own.as_ref().unwrap_or(&self.embedding.base);
            copy.value.write(&base.value.to_f32_vec()?)?;
        }
        let mut held = Vec::new();
        self.embedding.start_copy()?;
        for layer in &mut self.layers {
            layer.replaceable_mut(&mut held);
        }
        held.push(&mut self.norm.scale);
        held.into_iter().try_for_each(Replaceable::start_copy)
    }
}
