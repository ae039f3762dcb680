//! Writes checkpoints, the resulting weights and the report of a run.

use super::Trainer;
use crate::{
    Config, Observer, Outcome, RunReport, TrainError,
    batches::padding,
    checkpoint::{
        folder::{self, Files, Manifest},
        restore,
    },
    config::RunResult,
    files::at,
    output::weights_name,
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_formats::Tensors;
use tightrope_model::{Backend, TrainableModel};

impl<D: Backend> Trainer<'_, D> {
    /// Saves if it is due, and deletes checkpoints that need not stay; `done`: the run ends here.
    pub(super) fn save_if_due(
        &mut self,
        done: bool,
        observer: &dyn Observer,
    ) -> Result<(), TrainError> {
        let (step, best) = (self.state.step, self.state.best_step);
        let regular = step > 0 && step.is_multiple_of(self.config.run.save_every);
        let due = done || regular || best == Some(step);
        let saved = match due && self.saved_step != Some(step) {
            true => Some(self.save()?),
            false => None,
        };
        // Deletes even if nothing was saved: a run that was killed here may have left one
        // checkpoint too many.
        if due {
            let (parent, keep) = (self.output.checkpoints(), self.config.run.keep);
            self.retention.apply(&parent, keep, best, observer)?;
        }
        if let Some(path) = saved {
            observer.saved(step, &path);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<PathBuf, TrainError> {
        self.check_weights()?;
        self.check_moments()?;
        self.metrics.sync()?;
        let step = self.state.step;
        let parent = self.output.checkpoints();
        let (path, _) = folder::write(&parent, step, |checkpoint| {
            self.optimizer.write(&mut self.model, checkpoint)?;
            self.state.write(checkpoint)?;
            if let Some(references) = &self.references {
                references.write(checkpoint)?;
            }
            self.optimizer.show_averages(&mut self.model)?;
            let weights = checkpoint.join(weights_name(self.config));
            fs::create_dir(&weights).map_err(at(&weights))?;
            if self.config.lora.is_some() {
                self.model.save_adapter(&weights)?;
                if let Some(tokenizer) = self.tokenizer {
                    tokenizer.save_beside_adapter(&weights)?;
                }
            } else {
                self.model.save_merged(&weights)?;
                if let Some(tokenizer) = self.tokenizer {
                    tokenizer.save_to_folder(&weights)?;
                }
            }
            self.optimizer.hide_averages(&mut self.model)
        })?;
        self.saved_step = Some(step);
        self.retention.is_whole(step);
        Ok(path)
    }

    pub(super) fn newest_checkpoint(&self) -> Option<PathBuf> {
        Some(self.checkpoint(self.saved_step?))
    }

    fn checkpoint(&self, step: u64) -> PathBuf {
        self.output.checkpoints().join(folder::name(step))
    }

    /// Report of a run that ends here; a finished run leaves its weights in the output folder.
    pub(super) fn report(
        &mut self,
        outcome: Outcome,
        observer: &dyn Observer,
    ) -> Result<RunReport, TrainError> {
        let checkpoint = self.newest_checkpoint();
        let (weights, weights_step) = match (&checkpoint, &outcome) {
            (Some(checkpoint), Outcome::Stopped { .. }) => {
                (checkpoint.join(weights_name(self.config)), self.state.step)
            }
            _ => self.publish(observer)?,
        };
        let state = &self.state;
        let best = state.best_step.map(|step| self.checkpoint(step));
        let batches = &self.prepared.batches;
        let examples = batches.examples();
        Ok(RunReport {
            outcome,
            steps: state.step,
            first_step: self.first_step,
            tokens: state.tokens,
            trained_tokens: state.trained_tokens,
            padding_tokens: state.padding_tokens,
            padding: padding(batches.packing(), batches.passes_per_epoch(), examples),
            elapsed_s: state.elapsed_s,
            tokens_per_second: state.tokens as f64 / state.elapsed_s.max(f64::MIN_POSITIVE),
            first_loss: state.first_loss,
            last_loss: state.last_loss,
            evaluation_before: state.evaluation_before.clone(),
            evaluation: state.evaluation.clone(),
            best: state.best_loss.zip(state.best_step),
            peak_memory_bytes: self.peak_memory_bytes(),
            checkpoint,
            best_checkpoint: best.filter(|path| path.exists()),
            weights,
            weights_step,
        })
    }

    /// Copies the weights of the best or the last checkpoint to a fixed name, `adapter/` or
    /// `model/` in the output folder; returns the path and the step of the weights.
    fn publish(&mut self, observer: &dyn Observer) -> Result<(PathBuf, u64), TrainError> {
        let last = self.state.step;
        let best = match self.config.run.result {
            RunResult::Best => self.state.best_step.filter(|best| *best != last),
            RunResult::Last => None,
        };
        let best = best.map(|step| (step, folder::check(&self.checkpoint(step))));
        let (step, manifest) = match best {
            Some((step, Ok(manifest))) => (step, manifest),
            Some((step, Err(error))) => {
                observer.notice(&format!(
                    "{error}: the result has the weights of the last step, {last}, instead of the \
                     best, {step}"
                ));
                (last, folder::read(&self.checkpoint(last))?)
            }
            None => (last, folder::read(&self.checkpoint(last))?),
        };
        let name = weights_name(self.config);
        let from = self.checkpoint(step).join(name);
        let weights = self
            .output
            .publish(name, &from, below(&manifest, name), observer)?;
        Ok((weights, step))
    }
}

/// Files of a checkpoint in the folder `name`, by their paths relative to it.
fn below(manifest: &Manifest, name: &str) -> Files {
    let files = manifest.files.iter().filter_map(|(path, entry)| {
        let path = path.strip_prefix(name)?.strip_prefix('/')?;
        Some((path.to_owned(), entry.clone()))
    });
    files.collect()
}

/// Reads saved weights from one file, or from several with an index.
pub(super) fn read_weights<D: Backend>(
    model: &mut TrainableModel<D>,
    config: &Config,
    checkpoint: &Path,
) -> Result<(), TrainError> {
    let folder = checkpoint.join(weights_name(config));
    if config.lora.is_some() {
        return Ok(model.read_adapter(&folder)?);
    }
    let files = Tensors::open(&folder)?;
    let weights = model.parameters().into_iter();
    restore(
        &files,
        weights.map(|p| (p.name.to_owned(), p.weight.view_mut())),
    )
}
