//! The head of a reward model: `s = w · x` with the features `x` of a sequence's last token. As in
//! Transformers, it is the last one that is not the padding token of the configuration, which may
//! also be the token that ends texts.
//!
//! There is one number for a sequence, so the host computes it, in f64, on every device alike.

use super::Model;
use crate::{Adapters, Backend, HeadKind, ModelError, export::to_bytes};
use std::collections::BTreeMap;
use tightrope_device::{Device, Tensor};
use tightrope_packing::{Batch, RowSequence};

impl<D: Backend> Model<D> {
    /// The score of each sequence of a batch, in the order of [`Segments::sequences`], without
    /// dropout. Only a model whose head scores sequences ([`HeadKind::Score`]) has scores.
    ///
    /// [`Segments::sequences`]: tightrope_packing::Segments::sequences
    pub fn scores(&mut self, batch: &Batch) -> Result<Vec<f64>, ModelError> {
        self.expect_head(HeadKind::Score)?;
        self.run(batch, Adapters::On)?;
        let head = self.weights.head(Adapters::On).value.to_f32_vec()?;
        let ends = ends(batch, self.config.padding());
        of_rows(&self.activations.work.normed, &ends, &head)
    }

    /// Whether the head that scores was drawn from the seed, because neither the model's files nor an
    /// adapter have one.
    pub fn has_new_head(&self) -> bool {
        self.new_head
    }

    /// Names the token that fills rows in the configuration that is saved, unless it names one:
    /// Transformers' sequence classifiers need it.
    pub fn name_padding(&mut self, id: u32) {
        self.config.name_padding(id);
    }

    /// Returns an error unless the head is of a kind.
    pub(crate) fn expect_head(&self, kind: HeadKind) -> Result<(), ModelError> {
        match (self.config.architecture().head, kind) {
            (HeadKind::Score, HeadKind::Tokens) => Err(ModelError::Unsupported(
                "the model scores sequences (a reward model): it has no probabilities of tokens",
            )),
            (HeadKind::Tokens, HeadKind::Score) => Err(ModelError::Unsupported(
                "the model predicts tokens: it has no head that scores sequences",
            )),
            _ => Ok(()),
        }
    }
}

/// Row of each sequence that is scored.
pub(super) fn ends(batch: &Batch, padding: Option<u32>) -> Vec<usize> {
    let is_padding = |row: usize| Some(batch.tokens()[row]) == padding;
    let end = |sequence: RowSequence<'_>| {
        let last = sequence.tokens().filter(|&row| !is_padding(row)).last();
        last.or_else(|| sequence.tokens().last()).unwrap_or(0)
    };
    batch.segments().sequences().map(end).collect()
}

/// The scores of rows of `x`.
pub(super) fn of_rows<D: Device>(
    x: &Tensor<D>,
    rows: &[usize],
    head: &[f32],
) -> Result<Vec<f64>, ModelError> {
    let score = |&row: &usize| {
        let x = x.view().rows(row..row + 1)?.to_f32_vec()?;
        let products = x
            .iter()
            .zip(head)
            .map(|(&x, &w)| f64::from(x) * f64::from(w));
        Ok(products.sum())
    };
    rows.iter().map(score).collect()
}

/// `dx = slope · w` in the given rows of the first `tokens`, 0 in the others, and
/// `dw += Σ slope · x`, summed in f64 and rounded once. The slopes of a row that sequences share are
/// added.
pub(super) fn backward<D: Device>(
    (tokens, x, dx): (usize, &Tensor<D>, &mut Tensor<D>),
    rows: &[usize],
    slopes: &[f64],
    head: &[f32],
    dhead: Option<&mut Tensor<D>>,
) -> Result<(), ModelError> {
    let dtype = dx.dtype();
    dx.view_mut().rows(0..tokens)?.zero()?;
    let mut of_rows = BTreeMap::new();
    for (&row, &slope) in rows.iter().zip(slopes) {
        *of_rows.entry(row).or_insert(0.0) += slope;
    }
    let mut sums = vec![0f64; head.len()];
    for (row, slope) in of_rows {
        let gradient = head.iter().map(|&w| (slope * f64::from(w)) as f32);
        let place = dx.view_mut().rows(row..row + 1)?;
        place.write_bytes(&to_bytes(dtype, &gradient.collect::<Vec<_>>()))?;
        let x = x.view().rows(row..row + 1)?.to_f32_vec()?;
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += slope * f64::from(x);
        }
    }
    let Some(dhead) = dhead else {
        return Ok(());
    };
    let before = dhead.to_f32_vec()?.into_iter();
    let sums = before.zip(sums).map(|(x, sum)| (f64::from(x) + sum) as f32);
    Ok(dhead.write(&sums.collect::<Vec<_>>())?)
}
