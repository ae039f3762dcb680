//! The modules of a model, as PEFT sees them.

use crate::{checkpoint::SCORE as SCORE_TENSOR, parameter::ParameterKind, weights::Weights};
use std::collections::BTreeSet;

/// Name of the embedding's module.
pub(crate) const EMBEDDING: &str = "model.embed_tokens";
/// Name of the head's module.
pub(crate) const HEAD: &str = "lm_head";

/// Name of the module of a head that scores sequences.
pub(crate) const SCORE: &str = "score";

/// Kind of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModuleKind {
    /// A linear layer of the decoder, with or without a bias.
    Linear {
        bias: bool,
    },
    Norm,
    Embedding,
    Head,
    /// A module that only holds others, or computes without parameters.
    Other,
}

/// Every module of a model.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub modules: Vec<(String, ModuleKind)>,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether the head scores sequences.
    pub scores: bool,
    /// Number of decoder layers.
    pub layers: usize,
    /// Number of rows of the embedding.
    pub vocabulary: usize,
}

impl Inventory {
    pub(crate) fn of<T>(weights: &Weights<T>) -> Self {
        let own = weights.head.own.as_ref();
        let scores = own.is_some_and(|head| head.name == SCORE_TENSOR);
        let head = if scores { SCORE } else { HEAD };
        let mut modules = vec![
            (EMBEDDING.to_owned(), ModuleKind::Embedding),
            (head.to_owned(), ModuleKind::Head),
        ];
        modules.extend(weights.linears().map(|linear| {
            let bias = linear.bias.is_some();
            (linear.module().to_owned(), ModuleKind::Linear { bias })
        }));
        let norms = weights.base().filter(|p| p.kind == ParameterKind::Norm);
        modules.extend(norms.map(|norm| {
            let name = norm.name.trim_end_matches(".weight").to_owned();
            (name, ModuleKind::Norm)
        }));
        let mut others = BTreeSet::from(["model.rotary_emb".to_owned()]);
        for (name, _) in &modules {
            let mut name = name.as_str();
            while let Some((holder, _)) = name.rsplit_once('.') {
                others.insert(holder.to_owned());
                if holder.ends_with(".mlp") {
                    others.insert(format!("{holder}.act_fn"));
                }
                name = holder;
            }
        }
        modules.extend(others.into_iter().map(|name| (name, ModuleKind::Other)));
        Self {
            modules,
            tied: weights.head.is_tied(),
            scores,
            layers: weights.layers.len(),
            vocabulary: weights.embedding.base.shape[0],
        }
    }

    /// Names of the modules with a row for each token.
    pub(super) fn tables(&self) -> &'static [&'static str] {
        match self.scores {
            true => &[EMBEDDING],
            false => &[EMBEDDING, HEAD],
        }
    }

    /// Names of the modules that an adapter can have factors for.
    pub(super) fn adaptable(&self) -> impl Iterator<Item = &str> {
        self.linears().chain(self.tables().iter().copied())
    }

    /// Names of the linear layers of the decoder.
    pub(super) fn linears(&self) -> impl Iterator<Item = &str> {
        let is_linear = |kind: &ModuleKind| matches!(kind, ModuleKind::Linear { .. });
        let linears = self.modules.iter().filter(move |(_, kind)| is_linear(kind));
        linears.map(|(name, _)| name.as_str())
    }
}
