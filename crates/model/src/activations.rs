//! The layout of a step's activations, for a capacity of tokens. What has no type in its
//! description has that of the model's precision.

use crate::{
    Architecture, ModelError,
    plan::{Allocate, PlannedBuffer, Purpose},
    weights::{LayerWeights, Linears, Projection, Weights},
};
use tightrope_device::DType;

/// A batch on the device.
#[derive(Debug)]
pub(crate) struct Inputs<T> {
    /// u32 `[tokens]`.
    pub ids: T,
    /// i32 `[tokens]`.
    pub targets: T,
    /// u32 `[tokens, 2]`: sequence and position, for dropout.
    pub keys: T,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub cos: T,
    /// f32 `[tokens, rotary_dim / 2]`.
    pub sin: T,
    /// f32 `[tokens]`.
    pub losses: T,
}

/// The residual stream before a layer (or before the last norm), and what its norm found.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    /// `[tokens, hidden]`.
    pub hidden: T,
    /// f32 `[tokens]`.
    pub rstd: T,
}

/// What a layer's backward pass needs from its forward pass.
#[derive(Debug)]
pub(crate) struct Saved<T> {
    /// `[tokens, heads · head_dim]`: rotated, or as projected where heads are normalised.
    pub q: T,
    /// `[tokens, kv_heads · head_dim]`, likewise.
    pub k: T,
    /// `[tokens, kv_heads · head_dim]`.
    pub v: T,
    /// Of the norms of heads: f32 `[tokens, heads]` and `[tokens, kv_heads]`.
    pub head_rstd: Option<(T, T)>,
    /// What attention returned, `[tokens, heads · head_dim]`.
    pub attended: T,
    /// f32 `[tokens, heads]`.
    pub lse: T,
    /// Attention's branch before its norm.
    pub attention_branch: Option<Stream<T>>,
    /// The residual stream between attention and MLP.
    pub middle: Stream<T>,
    /// `[tokens, intermediate]`.
    pub gate: T,
    /// `[tokens, intermediate]`.
    pub up: T,
    /// The MLP's branch before its norm.
    pub mlp_branch: Option<Stream<T>>,
    /// `x·Aᵀ` of each adapter, f32 `[tokens, rank]`: the largest rank among the layers that share
    /// this.
    pub xa: Linears<Option<T>>,
}

/// Buffers that every layer uses in turn.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    /// What a norm returns, `[tokens, hidden]`.
    pub normed: T,
    /// What attention or MLP adds to the residual stream, `[tokens, hidden]`; in the backward
    /// pass the gradient of `normed`.
    pub branch: T,
    /// Queries and keys, normalised and rotated, where heads are normalised.
    pub rotated: Option<(T, T)>,
    /// What the gated unit returns, `[tokens, intermediate]`; in the backward pass first its
    /// gradient.
    pub activated: T,
}

/// Buffers of the backward pass.
#[derive(Debug)]
pub(crate) struct BackwardWorkspace<T> {
    /// Gradient of the residual stream, `[tokens, hidden]`.
    pub dhidden: T,
    /// Gradient of a branch before its norm, `[tokens, hidden]`.
    pub dbranch: Option<T>,
    /// `[tokens, heads · head_dim]`.
    pub dq: T,
    /// `[tokens, kv_heads · head_dim]`.
    pub dk: T,
    /// `[tokens, kv_heads · head_dim]`.
    pub dv: T,
    /// `[tokens, heads · head_dim]`.
    pub dattended: T,
    /// f32 `[tokens, heads]`.
    pub delta: T,
    /// `dy·B` of the adapter at hand, f32 `[tokens, largest rank]`.
    pub dyb: Option<T>,
}

/// All activations.
#[derive(Debug)]
pub(crate) struct Activations<T> {
    pub inputs: Inputs<T>,
    /// One before each layer and one at the end; a single one where nothing is trained.
    pub stream: Vec<Stream<T>>,
    /// One a layer; a single one with recomputation, or where nothing is trained.
    pub saved: Vec<Saved<T>>,
    pub workspace: Workspace<T>,
    /// `None` where nothing is trained.
    pub backward: Option<BackwardWorkspace<T>>,
}

/// Which of the `count` elements of [`Activations::saved`] a layer uses.
pub(crate) fn slot(layer: usize, count: usize) -> usize {
    layer % count
}

/// The largest rank for each linear layer among those of `layers`.
fn largest_ranks<W>(layers: &[&LayerWeights<W>]) -> Linears<Option<usize>> {
    let largest = |one: fn(&Linears<Projection<W>>) -> &Projection<W>| {
        let adapters = layers
            .iter()
            .filter_map(|l| one(&l.linears).adapter.as_ref());
        adapters.map(|adapter| adapter.rank).max()
    };
    Linears {
        q: largest(|linears| &linears.q),
        k: largest(|linears| &linears.k),
        v: largest(|linears| &linears.v),
        o: largest(|linears| &linears.o),
        gate: largest(|linears| &linears.gate),
        up: largest(|linears| &linears.up),
        down: largest(|linears| &linears.down),
    }
}

/// Lays activations out.
pub(crate) struct Builder<'a, A> {
    pub allocate: &'a mut A,
    pub architecture: &'a Architecture,
    pub capacity: usize,
    /// Type of activations.
    pub precision: DType,
}

impl<T, A: Allocate<Buffer = T>> Builder<'_, A> {
    /// All activations of the model whose parameters are `weights`.
    pub fn activations<W>(
        &mut self,
        weights: &Weights<W>,
        trained: bool,
        recompute: bool,
    ) -> Result<Activations<T>, ModelError> {
        let layers = self.architecture.layers();
        let streams = if trained { layers + 1 } else { 1 };
        let slots = if trained && !recompute { layers } else { 1 };
        let inputs = self.inputs()?;
        let stream = (0..streams)
            .map(|index| self.stream(&format!("residual {index}")))
            .collect::<Result<_, _>>()?;
        let saved = (0..slots)
            .map(|index| {
                let layers = weights.layers.iter().enumerate();
                let sharing = layers.filter(|(layer, _)| slot(*layer, slots) == index);
                let sharing: Vec<_> = sharing.map(|(_, layer)| layer).collect();
                self.saved(&format!("layer {index}"), &largest_ranks(&sharing))
            })
            .collect::<Result<_, _>>()?;
        let workspace = self.workspace()?;
        let ranks = weights.projections().filter_map(|p| p.adapter.as_ref());
        let largest_rank = ranks.map(|adapter| adapter.rank).max();
        let backward = if trained {
            Some(self.backward(largest_rank)?)
        } else {
            None
        };
        Ok(Activations {
            inputs,
            stream,
            saved,
            workspace,
            backward,
        })
    }

    fn inputs(&mut self) -> Result<Inputs<T>, ModelError> {
        let pairs = self.architecture.rope.rotary_dim() / 2;
        Ok(Inputs {
            ids: self.fixed("token ids", DType::U32, None)?,
            targets: self.fixed("targets", DType::I32, None)?,
            keys: self.fixed("dropout keys", DType::U32, Some(2))?,
            cos: self.fixed("cosines", DType::F32, Some(pairs))?,
            sin: self.fixed("sines", DType::F32, Some(pairs))?,
            losses: self.fixed("losses", DType::F32, None)?,
        })
    }

    fn saved(&mut self, at: &str, ranks: &Linears<Option<usize>>) -> Result<Saved<T>, ModelError> {
        let architecture = self.architecture;
        let Architecture {
            intermediate,
            heads,
            kv_heads,
            head_norms,
            branch_norms,
            ..
        } = *architecture;
        let (queries, keys) = (architecture.q_features(), architecture.kv_features());
        let name = |part: &str| format!("{at}: {part}");
        Ok(Saved {
            q: self.kept(name("queries"), queries)?,
            k: self.kept(name("keys"), keys)?,
            v: self.kept(name("values"), keys)?,
            head_rstd: if head_norms {
                let q = self.statistic(name("query norms"), heads)?;
                Some((q, self.statistic(name("key norms"), kv_heads)?))
            } else {
                None
            },
            attended: self.kept(name("attended"), queries)?,
            lse: self.statistic(name("log-sum-exp"), heads)?,
            attention_branch: match branch_norms {
                true => Some(self.stream(&name("attention branch"))?),
                false => None,
            },
            middle: self.stream(&name("residual after attention"))?,
            gate: self.kept(name("gate"), intermediate)?,
            up: self.kept(name("up"), intermediate)?,
            mlp_branch: match branch_norms {
                true => Some(self.stream(&name("MLP branch"))?),
                false => None,
            },
            xa: ranks.try_map(|rank| {
                rank.map(|rank| self.statistic(name("adapter"), rank))
                    .transpose()
            })?,
        })
    }

    fn workspace(&mut self) -> Result<Workspace<T>, ModelError> {
        let architecture = self.architecture;
        Ok(Workspace {
            normed: self.work("normed", architecture.hidden)?,
            branch: self.work("branch", architecture.hidden)?,
            rotated: if architecture.head_norms {
                let q = self.work("rotated queries", architecture.q_features())?;
                Some((q, self.work("rotated keys", architecture.kv_features())?))
            } else {
                None
            },
            activated: self.work("activated", architecture.intermediate)?,
        })
    }

    fn backward(&mut self, rank: Option<usize>) -> Result<BackwardWorkspace<T>, ModelError> {
        let architecture = self.architecture;
        let (queries, keys) = (architecture.q_features(), architecture.kv_features());
        Ok(BackwardWorkspace {
            dhidden: self.work("gradient of the residual", architecture.hidden)?,
            dbranch: match architecture.branch_norms {
                true => Some(self.work("gradient of the branch", architecture.hidden)?),
                false => None,
            },
            dq: self.work("gradient of the queries", queries)?,
            dk: self.work("gradient of the keys", keys)?,
            dv: self.work("gradient of the values", keys)?,
            dattended: self.work("gradient of attended", queries)?,
            delta: self.fixed("delta of attention", DType::F32, Some(architecture.heads))?,
            dyb: rank
                .map(|rank| self.fixed("gradient of the adapter", DType::F32, Some(rank)))
                .transpose()?,
        })
    }

    fn stream(&mut self, name: &str) -> Result<Stream<T>, ModelError> {
        Ok(Stream {
            hidden: self.kept(name.to_string(), self.architecture.hidden)?,
            rstd: self.statistic(format!("{name}, rstd"), 1)?,
        })
    }

    fn kept(&mut self, name: String, features: usize) -> Result<T, ModelError> {
        self.rows(name, Purpose::Saved, self.precision, features)
    }

    /// What is kept in f32 whatever the precision.
    fn statistic(&mut self, name: String, features: usize) -> Result<T, ModelError> {
        self.rows(name, Purpose::Saved, DType::F32, features)
    }

    fn work(&mut self, name: &str, features: usize) -> Result<T, ModelError> {
        self.rows(name.into(), Purpose::Workspace, self.precision, features)
    }

    fn fixed(
        &mut self,
        name: &str,
        dtype: DType,
        features: Option<usize>,
    ) -> Result<T, ModelError> {
        self.rows(
            name.into(),
            Purpose::Workspace,
            dtype,
            features.unwrap_or(1),
        )
    }

    fn rows(
        &mut self,
        name: String,
        purpose: Purpose,
        dtype: DType,
        features: usize,
    ) -> Result<T, ModelError> {
        self.allocate.allocate(PlannedBuffer {
            name,
            purpose,
            dtype,
            shape: vec![self.capacity, features],
            trained: None,
        })
    }
}
