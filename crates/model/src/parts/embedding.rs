//! The adapter of the embedding.

use crate::{
    Adapters, ModelError,
    lora::{EMBEDDING, PREFIX},
    parameter::{Parameter, ParameterKind},
    pass::Pass,
    plan::Allocate,
    weights,
};
use tightrope_device::{DType, Tensor, ViewMut};
use tightrope_kernels::{
    Check, Kernels, embedding,
    product::{Args, Matrix, MatrixMut, Start},
};

/// Factors of an adapter of the embedding: `y[t] = E[id] + s · A[:, id]ᵀ·Bᵀ`.
#[derive(Debug)]
pub(crate) struct EmbeddingAdapter<T> {
    /// The transpose of `A`, f32 `[vocabulary, rank]`, because ids select columns of `A`. Files have
    /// `A`.
    pub a: Parameter<T>,
    /// f32 `[hidden, rank]`.
    pub b: Parameter<T>,
    /// α/r, or α/√r.
    pub scale: f32,
    pub rank: usize,
}

impl<T> EmbeddingAdapter<T> {
    /// Lays out the adapter, if the embedding has one.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        (vocabulary, hidden): (usize, usize),
    ) -> Result<Option<Self>, ModelError> {
        let found = weights.layout.adapter.and_then(|a| a.matching(EMBEDDING));
        let Some((rank, scale)) = found else {
            return Ok(None);
        };
        let mut factor = |letter: &str, shape: [usize; 2]| {
            let name = format!("{PREFIX}{EMBEDDING}.lora_embedding_{letter}");
            weights.of_adapter(name, ParameterKind::EmbeddingFactor, &shape)
        };
        let mut a = factor("A", [vocabulary, rank])?;
        a.transposed = true;
        Ok(Some(Self {
            a,
            b: factor("B", [hidden, rank])?,
            scale,
            rank,
        }))
    }
}

impl<D: Kernels> EmbeddingAdapter<Tensor<D>> {
    /// Adds the adapter's share to the embeddings of the tokens `ids`.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        ids: &Tensor<D>,
        hidden: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        if pass.adapters == Adapters::Off {
            return Ok(());
        }
        let (tokens, features) = (pass.tokens, self.b.shape[0]);
        let mut rows = pass.device.scratch(hidden.dtype(), &[tokens, self.rank])?;
        pass.device
            .embedding_forward(self.gather(ids, rows.view_mut(), tokens).checked()?)?;
        let product = Args {
            alpha: self.scale * pass.architecture.embedding_scale,
            start: Start::Result,
            ..Args::new(
                Matrix::rows(rows.view(), self.rank),
                Matrix::rows(self.b.value.view(), self.rank).transposed(),
                MatrixMut::rows(hidden.view_mut(), features),
                (tokens, features, self.rank),
            )
        };
        Ok(pass.device.product(product.checked()?)?)
    }

    /// Adds into the gradients of the factors.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        ids: &Tensor<D>,
        dhidden: &Tensor<D>,
    ) -> Result<(), ModelError> {
        let (tokens, features, rank) = (pass.tokens, self.b.shape[0], self.rank);
        let device = pass.device;
        let alpha = self.scale * pass.architecture.embedding_scale;
        let mut rows = device.scratch(dhidden.dtype(), &[tokens, rank])?;
        device.embedding_forward(self.gather(ids, rows.view_mut(), tokens).checked()?)?;
        let mut drows = device.scratch(DType::F32, &[tokens, rank])?;
        let of_rows = Args {
            alpha,
            ..Args::new(
                Matrix::rows(dhidden.view(), features),
                Matrix::rows(self.b.value.view(), rank),
                MatrixMut::rows(drows.view_mut(), rank),
                (tokens, rank, features),
            )
        };
        device.product(of_rows.checked()?)?;
        if let Some(db) = &mut self.b.gradient {
            let product = Args {
                alpha,
                start: Start::Result,
                ..Args::new(
                    Matrix::rows(dhidden.view(), features).transposed(),
                    Matrix::rows(rows.view(), rank),
                    MatrixMut::rows(db.view_mut(), rank),
                    (features, rank, tokens),
                )
            };
            device.product(product.checked()?)?;
        }
        let Some(da) = &mut self.a.gradient else {
            return Ok(());
        };
        let scatter = embedding::Backward {
            ids: ids.view(),
            dy: drows.view(),
            scale: 1.0,
            dtable: da.view_mut(),
            tokens,
            vocabulary: self.a.shape[0],
            hidden: rank,
        };
        Ok(device.embedding_backward(scatter.checked()?)?)
    }

    /// The rows of `Aᵀ` that the tokens select.
    fn gather<'a>(
        &'a self,
        ids: &'a Tensor<D>,
        rows: ViewMut<'a, D>,
        tokens: usize,
    ) -> embedding::Forward<'a, D> {
        embedding::Forward {
            ids: ids.view(),
            table: self.a.value.view(),
            scale: 1.0,
            y: rows,
            tokens,
            vocabulary: self.a.shape[0],
            hidden: self.rank,
        }
    }
}
