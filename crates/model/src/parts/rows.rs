//! Rows of the embedding, or of a head, that an adapter trains while the others stay as they are.

use crate::{
    Adapters, ModelError,
    export::to_bytes,
    parameter::{Parameter, ParameterKind},
    plan::Allocate,
    weights,
};
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{Check, Kernels, embedding};

/// Trained rows of a table. A pass reads the table alone, so the rows are written to it before,
/// rounded to its type (PEFT: `trainable_token_indices`).
#[derive(Debug)]
pub(crate) struct Rows<T> {
    /// f32 `[rows, hidden]`.
    pub trained: Parameter<T>,
    /// Numbers of the rows in the table, in the order of `trained`.
    pub ids: Vec<usize>,
    /// The table's own values of these rows.
    own: Vec<f32>,
}

/// Gradient of the hidden states of a batch.
pub(crate) struct OfTokens<'a, D: Device> {
    pub tokens: &'a [u32],
    /// `[tokens, hidden]`.
    pub dhidden: &'a Tensor<D>,
    /// Factor of the embedding.
    pub scale: f32,
    pub hidden: usize,
}

impl<T> Rows<T> {
    /// Lays out the rows of the table called `table` in files, if some of them are trained.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        table: &str,
        kind: ParameterKind,
        hidden: usize,
    ) -> Result<Option<Self>, ModelError> {
        let of_table = weights.layout.adapter.and_then(|a| a.rows_of(table));
        let Some((in_file, ids)) = of_table else {
            return Ok(None);
        };
        let trained = weights.of_adapter(in_file.to_owned(), kind, &[ids.len(), hidden])?;
        Ok(Some(Self {
            trained,
            ids: ids.to_vec(),
            own: Vec::new(),
        }))
    }
}

impl<D: Device> Rows<Tensor<D>> {
    /// Keeps the table's own values of the rows, which are also those of a new adapter.
    pub(crate) fn keep_own(&mut self, table: &Tensor<D>, new: bool) -> Result<(), ModelError> {
        self.own.clear();
        for &id in &self.ids {
            let row = table.view().rows(id..id + 1)?;
            self.own.extend(row.to_f32_vec()?);
        }
        match new {
            true => Ok(self.trained.value.write(&self.own)?),
            false => Ok(()),
        }
    }

    /// Writes the trained rows to the table, or its own.
    pub(crate) fn show(&self, table: &mut Tensor<D>, adapters: Adapters) -> Result<(), ModelError> {
        let values = self.values(adapters)?;
        let (dtype, hidden) = (table.dtype(), values.len() / self.ids.len().max(1));
        let mut rest = &values[..];
        for run in self.ids.chunk_by(|one, next| one + 1 == *next) {
            let (values, others) = rest.split_at(run.len() * hidden);
            let rows = table.view_mut().rows(run[0]..run[0] + run.len())?;
            rows.write_bytes(&to_bytes(dtype, values))?;
            rest = others;
        }
        Ok(())
    }

    /// Writes the trained rows over those of a copy of the table whose type was `dtype`, or the
    /// table's own.
    pub(crate) fn write_to(
        &self,
        elements: &mut [f32],
        dtype: DType,
        adapters: Adapters,
    ) -> Result<(), ModelError> {
        let values = self.values(adapters)?;
        let hidden = values.len() / self.ids.len().max(1);
        for (&id, values) in self.ids.iter().zip(values.chunks_exact(hidden.max(1))) {
            for (element, &value) in elements[id * hidden..].iter_mut().zip(values) {
                *element = crate::export::rounded(dtype, value);
            }
        }
        Ok(())
    }

    fn values(&self, adapters: Adapters) -> Result<Vec<f32>, ModelError> {
        match adapters {
            Adapters::On => Ok(self.trained.value.to_f32_vec()?),
            Adapters::Off => Ok(self.own.clone()),
        }
    }
}

impl<D: Kernels> Rows<Tensor<D>> {
    /// Adds the gradients of the rows that the tokens of a batch have read.
    pub(crate) fn backward(&mut self, device: &D, of: &OfTokens<'_, D>) -> Result<(), ModelError> {
        let Some(dtable) = &mut self.trained.gradient else {
            return Ok(());
        };
        let row = |(at, token): (usize, &u32)| {
            let row = self.ids.iter().position(|id| *id == *token as usize)?;
            Some((at as u32, row as u32))
        };
        let found = of.tokens.iter().enumerate().filter_map(row);
        let (places, rows): (Vec<u32>, Vec<u32>) = found.unzip();
        if places.is_empty() {
            return Ok(());
        }
        let (tokens, hidden) = (places.len(), of.hidden);
        let mut on_device = device.scratch(DType::U32, &[2, tokens])?;
        on_device.view_mut().write(&[places, rows].concat())?;
        let ids = |half: usize| {
            on_device
                .view()
                .elements(half * tokens..(half + 1) * tokens)
        };
        let mut dy = device.scratch(of.dhidden.dtype(), &[tokens, hidden])?;
        let gather = embedding::Forward {
            ids: ids(0)?,
            table: of.dhidden.view().rows(0..of.tokens.len())?,
            scale: 1.0,
            y: dy.view_mut(),
            tokens,
            vocabulary: of.tokens.len(),
            hidden,
        };
        device.embedding_forward(gather.checked()?)?;
        let gradient = embedding::Backward {
            ids: ids(1)?,
            dy: dy.view(),
            scale: of.scale,
            dtable: dtable.view_mut(),
            tokens,
            vocabulary: self.ids.len(),
            hidden,
        };
        Ok(device.embedding_backward(gradient.checked()?)?)
    }
}
