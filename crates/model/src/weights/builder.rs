//! Lays out the parameters of an architecture.

use super::{Adapter, HeadNorms, LayerWeights, Linears, Nf4, Projection, Weight, Weights};
use crate::{
    Architecture, BaseStorage, ModelError,
    checkpoint::Stored,
    lora::AdapterConfig,
    parameter::{Parameter, ParameterKind},
    plan::Allocate,
    random::hash,
};
use tightrope_device::DType;

/// What the layout of parameters depends on besides the architecture.
pub(crate) struct Layout<'a> {
    /// Whether all of the model's own parameters are trained (and kept in f32).
    pub full: bool,
    /// The adapter, if there is one.
    pub adapter: Option<&'a AdapterConfig>,
    /// Whether the adapter is trained.
    pub adapter_trained: bool,
    /// How frozen weights of linear layers are kept.
    pub base: BaseStorage,
    /// How files hold a parameter; frozen matrices and embeddings keep that.
    pub stored: &'a dyn Fn(&str) -> Stored,
}

/// Lays parameters out; names are those of Transformers.
pub(crate) struct Builder<'a, A> {
    pub allocate: &'a mut A,
    pub architecture: &'a Architecture,
    pub layout: Layout<'a>,
}

impl<T, A: Allocate<Buffer = T>> Builder<'_, A> {
    /// All parameters.
    pub fn weights(&mut self) -> Result<Weights<T>, ModelError> {
        let architecture = self.architecture;
        let table = [architecture.vocabulary, architecture.hidden];
        let embedding = "model.embed_tokens.weight".to_string();
        let embedding = self.parameter(embedding, ParameterKind::Embedding, &table)?;
        let layers = (0..architecture.layers())
            .map(|layer| self.layer(layer))
            .collect::<Result<_, _>>()?;
        let norm = self.norm("model.norm".into(), architecture.hidden)?;
        let head = if architecture.tied_head {
            None
        } else {
            let head = "lm_head.weight".to_string();
            Some(self.parameter(head, ParameterKind::Matrix, &table)?)
        };
        Ok(Weights {
            embedding,
            layers,
            norm,
            head,
        })
    }

    fn layer(&mut self, layer: usize) -> Result<LayerWeights<T>, ModelError> {
        let Architecture {
            hidden,
            intermediate,
            head_dim,
            head_norms,
            branch_norms,
            qkv_bias,
            output_bias,
            mlp_bias,
            ..
        } = *self.architecture;
        let (queries, keys) = (
            self.architecture.q_features(),
            self.architecture.kv_features(),
        );
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let attention_norm = self.norm(name("input_layernorm"), hidden)?;
        let head_norms = match head_norms {
            false => None,
            true => Some(HeadNorms {
                q: self.norm(name("self_attn.q_norm"), head_dim)?,
                k: self.norm(name("self_attn.k_norm"), head_dim)?,
            }),
        };
        let (attention_branch_norm, mlp_norm, mlp_branch_norm);
        if branch_norms {
            attention_branch_norm = Some(self.norm(name("post_attention_layernorm"), hidden)?);
            mlp_norm = self.norm(name("pre_feedforward_layernorm"), hidden)?;
            mlp_branch_norm = Some(self.norm(name("post_feedforward_layernorm"), hidden)?);
        } else {
            attention_branch_norm = None;
            mlp_norm = self.norm(name("post_attention_layernorm"), hidden)?;
            mlp_branch_norm = None;
        }
        let mut linear =
            |part: &str, inputs, outputs, bias| self.projection(name(part), inputs, outputs, bias);
        let linears = Linears {
            q: linear("self_attn.q_proj", hidden, queries, qkv_bias)?,
            k: linear("self_attn.k_proj", hidden, keys, qkv_bias)?,
            v: linear("self_attn.v_proj", hidden, keys, qkv_bias)?,
            o: linear("self_attn.o_proj", queries, hidden, output_bias)?,
            gate: linear("mlp.gate_proj", hidden, intermediate, mlp_bias)?,
            up: linear("mlp.up_proj", hidden, intermediate, mlp_bias)?,
            down: linear("mlp.down_proj", intermediate, hidden, mlp_bias)?,
        };
        Ok(LayerWeights {
            attention_norm,
            linears,
            head_norms,
            attention_branch_norm,
            mlp_norm,
            mlp_branch_norm,
        })
    }

    fn projection(
        &mut self,
        module: String,
        inputs: usize,
        outputs: usize,
        bias: bool,
    ) -> Result<Projection<T>, ModelError> {
        let weight = self.weight(format!("{module}.weight"), &[outputs, inputs])?;
        let bias = if bias {
            let name = format!("{module}.bias");
            Some(self.parameter(name, ParameterKind::Bias, &[outputs])?)
        } else {
            None
        };
        let matched = self
            .layout
            .adapter
            .and_then(|adapter| adapter.matching(&module));
        let adapter = match matched {
            None => None,
            Some((rank, scale)) => {
                let mut factor = |letter: &str, kind, shape: [usize; 2]| {
                    let name = format!("base_model.model.{module}.lora_{letter}.weight");
                    let trained = self.layout.adapter_trained;
                    let dtypes = (DType::F32, DType::F32);
                    Parameter::allocate(self.allocate, name, kind, dtypes, &shape, trained)
                };
                Some(Adapter {
                    a: factor("A", ParameterKind::LoraA, [rank, inputs])?,
                    b: factor("B", ParameterKind::LoraB, [outputs, rank])?,
                    scale,
                    rank,
                    salt: hash(&module),
                })
            }
        };
        Ok(Projection {
            weight,
            bias,
            adapter,
            inputs,
            outputs,
        })
    }

    fn weight(&mut self, name: String, shape: &[usize]) -> Result<Weight<T>, ModelError> {
        let stored = (self.layout.stored)(&name);
        let double = match (stored, self.layout.base) {
            (Stored::Float(_), BaseStorage::AsStored) => {
                let weight = self.parameter(name, ParameterKind::Matrix, shape)?;
                return Ok(Weight::Float(weight));
            }
            (Stored::Nf4 { double, .. }, _) => double,
            (Stored::Float(_), BaseStorage::Nf4) => true,
        };
        if self.layout.full {
            let reason = "weights in NF4 cannot be trained: train an adapter on them";
            return Err(ModelError::Unsupported(reason));
        }
        let weight = Nf4::allocate(self.allocate, name, stored.dtype(), shape, double)?;
        Ok(Weight::Nf4(weight))
    }

    fn norm(&mut self, module: String, features: usize) -> Result<Parameter<T>, ModelError> {
        self.parameter(format!("{module}.weight"), ParameterKind::Norm, &[features])
    }

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
            ParameterKind::Matrix | ParameterKind::Embedding => stored,
            _ => DType::F32,
        };
        Parameter::allocate(self.allocate, name, kind, (dtype, stored), shape, full)
    }
}
