//! Finds the log-probabilities of the reference model: in the checkpoint that a run goes on from, or
//! by a pass over the data.

use crate::{
    Config, Observer, Output, Prepared, TrainError,
    checkpoint::Identity,
    config::{InitialFactors, LoraSection, Reference},
    objective::{self, References, kto},
};
use std::{path::Path, sync::Arc};
use tightrope_data::{ExampleKind, Examples};
use tightrope_formats::{Encoding, TensorOut, Tensors, safetensors};
use tightrope_model::{Backend, TrainableModel};
use tightrope_packing::Packing;

/// File of a checkpoint.
const FILE: &str = "reference.safetensors";

impl References {
    /// The values for a model before its first update; `None` if the method has none, or if the
    /// reference is the model without its adapter. Those of a checkpoint count if data, model and
    /// every setting that decides a result are still the same.
    pub(super) fn find<D: Backend>(
        config: &Config,
        identity: &Identity,
        output: &Output,
        model: &mut TrainableModel<D>,
        prepared: &Prepared<'_>,
        observer: &dyn Observer,
    ) -> Result<Option<Arc<Self>>, TrainError> {
        let section = &config.objective;
        // A new adapter changes nothing until it is trained, unless it makes up for NF4.
        let loftq = |lora: &LoraSection| lora.init == InitialFactors::Loftq;
        let changes = config.adapter.is_some() || config.lora.as_ref().is_some_and(loftq);
        let is_start = section.reference == Some(Reference::Start) && changes;
        if config.lora.is_some() && !is_start || !section.kind.has_reference() {
            return Ok(None);
        }
        if let Some((checkpoint, saved)) = output.resume()
            && saved.identity.changes(identity).is_empty()
            && checkpoint.join(FILE).is_file()
        {
            return Ok(Some(Arc::new(Self::read(checkpoint)?)));
        }
        observer
            .notice("computing the log-probabilities of the reference model, once for each answer");
        let mut of = |examples: Examples<'_>, packings: &[&Packing]| match examples.kind() {
            ExampleKind::Labelled => {
                let max_length = config.data.max_length;
                kto::reference(model, examples, packings, max_length, observer)
            }
            _ => objective::reference(model, examples, packings, observer),
        };
        let batches = &prepared.batches;
        Ok(Some(Arc::new(Self {
            train: of(batches.examples(), &[batches.packing()])?,
            eval: match &prepared.eval {
                Some((data, sets)) => {
                    let packings: Vec<&Packing> = sets.iter().map(|set| &set.packing).collect();
                    of((*data).into(), &packings)?
                }
                None => Vec::new(),
            },
        })))
    }

    /// Writes f64 `[examples, 2]` of training and of evaluation data into a checkpoint.
    pub(super) fn write(&self, checkpoint: &Path) -> Result<(), TrainError> {
        let tensors = [("eval", &self.eval), ("train", &self.train)];
        let tensors = tensors.into_iter().map(|(name, values)| {
            TensorOut::new(name, Encoding::F64, &[values.len(), 2], move || {
                let numbers = values.iter().flatten();
                Ok::<_, TrainError>(numbers.flat_map(|x| x.to_le_bytes()).collect())
            })
        });
        safetensors::write(&checkpoint.join(FILE), &[], tensors.collect())
    }

    fn read(checkpoint: &Path) -> Result<Self, TrainError> {
        let files = Tensors::open(&checkpoint.join(FILE))?;
        let of = |name: &str| -> Result<Vec<[f64; 2]>, TrainError> {
            let bytes = files.read(name)?;
            let numbers = bytes.as_chunks::<8>().0.iter().copied();
            let numbers: Vec<f64> = numbers.map(f64::from_le_bytes).collect();
            Ok(numbers.as_chunks::<2>().0.to_vec())
        };
        Ok(Self {
            train: of("train")?,
            eval: of("eval")?,
        })
    }
}
