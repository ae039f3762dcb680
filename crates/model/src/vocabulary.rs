//! New tokens: rows of the embedding and of the head that the model's files do not have.

use crate::{
    Backend, LoadOptions, Model, ModelConfig, ModelError, NewToken,
    checkpoint::{EMBEDDING, HEAD},
    export::to_bytes,
    lora,
    parameter::Parameter,
};
use tightrope_device::{Device, Tensor};

impl ModelConfig {
    /// Number of rows that the embedding has with the new tokens of the options and with those of
    /// the adapter.
    pub fn rows(&self, options: &LoadOptions) -> Result<usize, ModelError> {
        let own = self.architecture().vocabulary;
        let new = options.new_tokens.iter().map(|new| new.id as usize + 1);
        let rows = new.fold(own, usize::max);
        match &options.adapter {
            Some(folder) => Ok(rows.max(lora::vocabulary(folder, own)?)),
            None => Ok(rows),
        }
    }
}

/// Whether the parameter has a row for each token.
pub(crate) fn is_table<T>(parameter: &Parameter<T>) -> bool {
    [EMBEDDING, HEAD].contains(&&*parameter.name)
}

impl<D: Backend> Model<D> {
    /// Writes the rows of new tokens: the mean of the rows that each is made of, or of the first
    /// `own` rows without those of new tokens, which are those of the model's files. Rows between
    /// get the latter, too. Means are in f64 and rounded once.
    pub(crate) fn start_new_tokens(
        &mut self,
        own: usize,
        new: &[NewToken],
    ) -> Result<(), ModelError> {
        let rows = self.config.architecture().vocabulary;
        if rows == own && new.is_empty() {
            return Ok(());
        }
        for table in self.weights.base_mut().filter(|p| is_table(p)) {
            start(table, own, rows, new)?;
        }
        Ok(())
    }
}

fn start<D: Device>(
    table: &mut Parameter<Tensor<D>>,
    own: usize,
    rows: usize,
    new: &[NewToken],
) -> Result<(), ModelError> {
    let hidden = table.shape[1];
    let elements = table.value.to_f32_vec()?;
    let mean = |of: &mut dyn Iterator<Item = usize>| {
        let (mut sum, mut count) = (vec![0f64; hidden], 0.0);
        for id in of {
            let row = &elements[id * hidden..][..hidden];
            sum.iter_mut()
                .zip(row)
                .for_each(|(s, &x)| *s += f64::from(x));
            count += 1.0;
        }
        let mean = sum.iter().map(|sum| (sum / f64::max(count, 1.0)) as f32);
        mean.collect::<Vec<f32>>()
    };
    let is_new = |id: usize| new.iter().any(|new| new.id as usize == id);
    let of_all = mean(&mut (0..own).filter(|id| !is_new(*id)));
    let mut started: Vec<(usize, Vec<f32>)> = (own..rows).map(|id| (id, of_all.clone())).collect();
    for NewToken { id, from } in new {
        let wrong = from.iter().position(|id| *id as usize >= own);
        if let Some(index) = wrong {
            return Err(ModelError::Token {
                index,
                id: from[index].into(),
                vocabulary: own,
            });
        }
        let row = match from.is_empty() {
            true => of_all.clone(),
            false => mean(&mut from.iter().map(|id| *id as usize)),
        };
        started.push((*id as usize, row));
    }
    let dtype = table.value.dtype();
    for (id, row) in started {
        let at = table.value.view_mut().rows(id..id + 1)?;
        at.write_bytes(&to_bytes(dtype, &row))?;
    }
    Ok(())
}
