//! Parameters: values and, if they are trained, gradients.

use crate::{
    Adapters, ModelError,
    parts::{Held, HeldMut},
    plan::{Allocate, PlannedBuffer, Purpose},
};
use tightrope_device::{DType, Device, Tensor};

/// Kind of a parameter; optimizers treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// First factor of an adapter, `[r, inputs]`.
    LoraA,
    /// Second factor of an adapter, `[outputs, r]`.
    LoraB,
    /// A factor of an adapter of the embedding, `[vocabulary, r]` or `[hidden, r]`.
    EmbeddingFactor,
    /// Magnitudes of an adapter (DoRA), `[outputs]`.
    Magnitude,
    /// The embedding (and a head that is tied to it).
    Embedding,
    /// A head that is not tied to the embedding.
    Head,
    /// Scale of a norm.
    Norm,
    /// Bias of a linear layer.
    Bias,
    /// Weight of a linear layer.
    Matrix,
}

impl ParameterKind {
    /// Group of parameters that an optimizer may treat alike: by the same rule, with the same weight
    /// decay and the same learning rate.
    pub(crate) fn group(self) -> u8 {
        match self {
            ParameterKind::Embedding => 0,
            ParameterKind::Head => 1,
            ParameterKind::LoraA | ParameterKind::EmbeddingFactor | ParameterKind::Matrix => 2,
            ParameterKind::LoraB => 3,
            ParameterKind::Norm | ParameterKind::Bias | ParameterKind::Magnitude => 4,
        }
    }

    /// Whether weight decay applies: to matrices and embeddings, not to norms, biases and
    /// magnitudes.
    pub fn decays(self) -> bool {
        !matches!(
            self,
            ParameterKind::Norm | ParameterKind::Bias | ParameterKind::Magnitude
        )
    }
}

/// A trained parameter, for an optimizer.
#[derive(Debug)]
pub struct ParameterMut<'a, D: Device> {
    /// Name of the tensor in checkpoint files: `model.layers.0.mlp.up_proj.weight`, or PEFT's name
    /// in an adapter.
    pub name: &'a str,
    /// f32; the factor `A` of the embedding lies transposed, `[vocabulary, r]`.
    pub weight: &'a mut Tensor<D>,
    /// f32, with the shape of the weight.
    pub gradient: &'a mut Tensor<D>,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Kind of the parameter.
    pub kind: ParameterKind,
}

/// A named value with its gradient, if it is trained.
#[derive(Debug)]
pub(crate) struct Parameter<T> {
    pub name: String,
    pub kind: ParameterKind,
    pub shape: Vec<usize>,
    pub value: T,
    pub gradient: Option<T>,
    /// Type that exports convert back to.
    pub stored: DType,
    /// Whether files have the transpose of the matrix.
    pub transposed: bool,
}

impl<T> Parameter<T> {
    /// Lays out a parameter of the model or of its adapter, whose value has type `dtype` (and type
    /// `stored` in files); gradients are always f32.
    pub(crate) fn allocate<A: Allocate<Buffer = T>>(
        allocate: &mut A,
        name: String,
        kind: ParameterKind,
        (dtype, stored): (DType, DType),
        shape: &[usize],
        (purpose, trained): (Purpose, bool),
    ) -> Result<Self, ModelError> {
        let value = allocate.allocate(PlannedBuffer {
            name: name.clone(),
            purpose,
            dtype,
            shape: shape.to_vec(),
            trained: trained.then_some(kind),
        })?;
        let gradient = if trained {
            Some(allocate.allocate(PlannedBuffer {
                name: format!("gradient of {name}"),
                purpose: Purpose::Gradients,
                dtype: DType::F32,
                shape: shape.to_vec(),
                trained: Some(kind),
            })?)
        } else {
            None
        };
        Ok(Self {
            name,
            kind,
            shape: shape.to_vec(),
            value,
            gradient,
            stored,
            transposed: false,
        })
    }
}

/// The transpose of a matrix with this number of rows.
pub(crate) fn transposed(elements: &[f32], rows: usize) -> Vec<f32> {
    let columns = elements.len() / rows.max(1);
    let at = |index: usize| elements[index % rows * columns + index / rows];
    (0..elements.len()).map(at).collect()
}

/// A parameter of the model that an adapter may replace.
#[derive(Debug)]
pub(crate) struct Replaceable<T> {
    /// The model's own.
    pub base: Parameter<T>,
    /// The adapter's, f32 in the shape of `base`.
    pub copy: Option<Parameter<T>>,
}

impl<T> Replaceable<T> {
    /// The parameter that a pass uses.
    pub(crate) fn of(&self, adapters: Adapters) -> &Parameter<T> {
        match (adapters, &self.copy) {
            (Adapters::On, Some(copy)) => copy,
            _ => &self.base,
        }
    }

    /// The parameter that is trained: the adapter's, if it has one.
    pub(crate) fn trained_mut(&mut self) -> &mut Parameter<T> {
        self.copy.as_mut().unwrap_or(&mut self.base)
    }

    /// Whether either parameter has a gradient.
    pub(crate) fn is_trained(&self) -> bool {
        self.of(Adapters::On).gradient.is_some()
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        all.push(Held::Base(&self.base));
        all.extend(self.copy.as_ref().map(Held::Adapter));
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        all.push(HeldMut::Base(&mut self.base));
        all.extend(self.copy.as_mut().map(HeldMut::Adapter));
    }
}

impl<D: Device> Replaceable<Tensor<D>> {
    /// Writes the model's own values to the adapter's.
    pub(crate) fn start_copy(&mut self) -> Result<(), ModelError> {
        match &mut self.copy {
            Some(copy) => Ok(copy.value.write(&self.base.value.to_f32_vec()?)?),
            None => Ok(()),
        }
    }
}

impl<T> Parameter<T> {
    /// Shape in files.
    pub(crate) fn file_shape(&self) -> Vec<usize> {
        match (self.transposed, &self.shape[..]) {
            (true, &[rows, columns]) => vec![columns, rows],
            _ => self.shape.clone(),
        }
    }
}

impl<D: Device> Parameter<Tensor<D>> {
    /// The elements in the order of files.
    pub(crate) fn to_file(&self) -> Result<Vec<f32>, ModelError> {
        let elements = self.value.to_f32_vec()?;
        Ok(match self.transposed {
            true => transposed(&elements, self.shape[0]),
            false => elements,
        })
    }

    /// Writes elements in the order of files.
    pub(crate) fn write_from_file(&mut self, elements: &[f32]) -> Result<(), ModelError> {
        let written = match self.transposed {
            true => self.value.write(&transposed(elements, self.shape[1])),
            false => self.value.write(elements),
        };
        Ok(written?)
    }

    /// The parameter for an optimizer, if it is trained.
    pub(crate) fn trained(&mut self) -> Option<ParameterMut<'_, D>> {
        let gradient = self.gradient.as_mut()?;
        Some(ParameterMut {
            name: &self.name,
            weight: &mut self.value,
            gradient,
            decay: self.kind.decays(),
            kind: self.kind,
        })
    }
}
