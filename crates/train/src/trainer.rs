//! The step loop: batches, gradients, update, evaluation, checkpoints.

use crate::{
    Config, Evaluation, Metrics, Observer, Optimizer, Outcome, Output, Plan, Prepared, RunOptions,
    RunReport, Schedule, StepRow, StopFlag, TrainError,
    batches::padding,
    checkpoint::{CheckpointError, Identity, State, folder, read_tensors},
    diagnosis,
    evaluate::evaluate_packed,
    files::{self, at},
    gradient_norm,
    metrics::{EvalRow, peak_memory_bytes},
    random,
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tightrope_data::Tokenizer;
use tightrope_model::{Backend, Model};
use tightrope_packing::Batch;

/// Trains a model on prepared data, in an output folder.
///
/// What a step does is a function of configuration, data and step number alone; a run that was
/// stopped and resumed therefore ends with the same bits as one that never stopped.
pub struct Trainer<'a, D: Backend> {
    config: &'a Config,
    output: Output,
    prepared: Prepared<'a>,
    tokenizer: Option<&'a Tokenizer>,
    model: Model<D>,
    optimizer: Optimizer<D>,
    schedule: Schedule,
    total_steps: u64,
    metrics: Metrics,
    state: State,
    /// The step of the newest checkpoint.
    saved_step: Option<u64>,
    first_loss: Option<f64>,
    last_loss: Option<f64>,
    evaluation: Option<Evaluation>,
}

impl<'a, D: Backend> Trainer<'a, D> {
    /// Puts everything together; if the output says that the run is resumed, weights and optimizer
    /// are those of the checkpoint. `facts` is what else must stay the same on resuming.
    pub fn new(
        config: &'a Config,
        options: &RunOptions,
        output: Output,
        prepared: Prepared<'a>,
        tokenizer: Option<&'a Tokenizer>,
        mut model: Model<D>,
        observer: &dyn Observer,
    ) -> Result<Self, TrainError> {
        let ratio = config
            .lora
            .as_ref()
            .map_or(1.0, |lora| lora.lora_plus_ratio);
        let mut optimizer = Optimizer::new(&mut model, &config.optimizer, ratio)?;
        let total_steps = prepared.batches.total_steps(config);
        let identity = Identity::new(config, &prepared.facts());
        let mut state = State::new(identity.clone());
        if let Some((checkpoint, saved)) = output.resume() {
            let changes = saved.identity.changes(&identity);
            if !changes.is_empty() && !options.allow_change {
                return Err(TrainError::Changed { changes });
            }
            for change in &changes {
                observer.notice(&format!("changed since the checkpoint: {change}"));
            }
            if saved.total_steps != total_steps && Schedule::depends_on_length(&config.schedule) {
                observer.notice(&format!(
                    "the run now has {total_steps} steps instead of {}: from step {} on the learning \
                     rate follows the schedule of the new length, so the result is not that of a run \
                     of {total_steps} steps from the start",
                    saved.total_steps,
                    saved.step + 1,
                ));
            }
            read_weights(&mut model, config, checkpoint)?;
            optimizer.read(checkpoint)?;
            state = saved.clone();
            state.identity = identity;
        }
        state.total_steps = total_steps;
        let metrics = Metrics::open(output.folder(), state.step, state.evaluated_step)?;
        Ok(Self {
            schedule: Schedule::new(
                &config.schedule,
                config.optimizer.learning_rate,
                total_steps,
            ),
            saved_step: output.resume().map(|(_, state)| state.step),
            config,
            output,
            prepared,
            tokenizer,
            model,
            optimizer,
            total_steps,
            metrics,
            state,
            first_loss: None,
            last_loss: None,
            evaluation: None,
        })
    }

    /// Runs to the end, or until `stop` is requested; then the step is finished and saved.
    pub fn run(
        &mut self,
        stop: &StopFlag,
        observer: &dyn Observer,
    ) -> Result<RunReport, TrainError> {
        observer.planned(&self.plan());
        loop {
            let finished = self.state.step >= self.total_steps;
            let evaluated = self.evaluate_if_due(finished, stop, observer)?;
            let stopped = stop.is_requested();
            let finished = finished && evaluated;
            let patience = self.config.run.patience;
            let early = patience.is_some_and(|p| self.state.evaluations_without_gain >= p);
            let done = finished || early || stopped;
            self.save_if_due(done, observer)?;
            if done {
                let outcome = match (finished, early, self.newest_checkpoint()) {
                    (false, false, Some(checkpoint)) => Outcome::Stopped {
                        step: self.state.step,
                        checkpoint,
                    },
                    (false, true, _) => Outcome::StoppedEarly,
                    _ => Outcome::Finished,
                };
                return self.report(outcome);
            }
            self.step(observer)?;
        }
    }

    /// Of the GPU, if there is one, else of the process.
    fn peak_memory_bytes(&self) -> Option<u64> {
        match self.model.device().peak_bytes() {
            Some(bytes) => Some(bytes as u64),
            None => peak_memory_bytes(),
        }
    }

    /// The model, with the weights of the last step.
    pub fn into_model(self) -> Model<D> {
        self.model
    }

    fn plan(&mut self) -> Plan {
        let parameters = self.model.parameters();
        let trained_parameters = parameters.iter().map(|p| p.weight.len() as u64).sum();
        let batches = &self.prepared.batches;
        Plan {
            device: self.model.device().name(),
            trained_parameters,
            optimizer: self.optimizer.plan(),
            sequences: self.prepared.train.sequences.len() as u64,
            packs: batches.packing().len() as u64,
            tokens_per_epoch: batches.packing().tokens(),
            first_step: self.state.step,
            total_steps: self.total_steps,
            steps_per_epoch: batches.steps_per_epoch(),
        }
    }

    fn step(&mut self, observer: &dyn Observer) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step + 1;
        let passes = self.prepared.batches.step(step)?;
        let count = |tokens: fn(&Batch) -> usize| passes.iter().map(|b| tokens(b) as u64).sum();
        let trained_tokens: u64 = count(Batch::trained_tokens);
        let tokens: u64 = count(Batch::real_tokens);
        let computed: u64 = count(Batch::len);
        // One denominator for the whole step. A step of cut pieces may have no target at all.
        let scale = 1.0 / trained_tokens.max(1) as f64;
        let salt = random::hash(self.config.seed, step);
        self.model.zero_gradients()?;
        let mut sum = 0.0;
        for pass in &passes {
            sum += self.model.forward_backward(pass, scale as f32, salt)?.sum;
        }
        let loss = sum * scale;
        let grad_norm = gradient_norm(&mut self.model)?;
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Err(TrainError::NotFinite {
                step,
                what: if loss.is_finite() {
                    "the gradient"
                } else {
                    "the loss"
                },
                sequences: diagnosis::culprits(&mut self.model, &passes, salt, &self.prepared)?,
                checkpoint: self.newest_checkpoint(),
            });
        }
        let learning_rate = self.schedule.learning_rate(step);
        self.optimizer
            .update(&mut self.model, step, learning_rate, grad_norm)?;

        let seconds = started.elapsed().as_secs_f64();
        self.state.step = step;
        self.state.tokens += tokens;
        self.state.trained_tokens += trained_tokens;
        self.state.padding_tokens += computed - tokens;
        self.state.elapsed_s += seconds;
        self.first_loss.get_or_insert(loss);
        self.last_loss = Some(loss);
        let row = StepRow {
            step,
            loss,
            grad_norm,
            learning_rate,
            tokens,
            trained_tokens,
            padding_tokens: computed - tokens,
            tokens_per_second: tokens as f64 / seconds,
            elapsed_s: self.state.elapsed_s,
            peak_memory_bytes: self.peak_memory_bytes(),
        };
        self.metrics.write(&row)?;
        observer.stepped(&row);
        Ok(())
    }

    /// Whether nothing is left to evaluate at this step. An evaluation that was stopped half way
    /// is done again when the run is resumed.
    fn evaluate_if_due(
        &mut self,
        finished: bool,
        stop: &StopFlag,
        observer: &dyn Observer,
    ) -> Result<bool, TrainError> {
        let step = self.state.step;
        let regular = self
            .config
            .run
            .eval_every
            .is_some_and(|n| step.is_multiple_of(n));
        let due = step > self.state.evaluated_step && (regular || finished);
        let (true, Some((data, packing))) = (due, &self.prepared.eval) else {
            return Ok(true);
        };
        let Some(evaluation) = evaluate_packed(&mut self.model, &data.sequences, packing, stop)?
        else {
            return Ok(false);
        };
        let row = EvalRow {
            step,
            eval_loss: evaluation.loss,
            eval_perplexity: evaluation.perplexity,
            eval_tokens: evaluation.tokens,
            eval_trained_tokens: evaluation.trained_tokens,
            elapsed_s: self.state.elapsed_s,
        };
        self.state.evaluated_step = step;
        if self
            .state
            .best_loss
            .is_none_or(|best| evaluation.loss < best)
        {
            self.state.best_loss = Some(evaluation.loss);
            self.state.best_step = Some(step);
            self.state.evaluations_without_gain = 0;
        } else if regular {
            self.state.evaluations_without_gain += 1;
        }
        self.evaluation = Some(evaluation);
        self.metrics.write(&row)?;
        observer.evaluated(&row);
        Ok(true)
    }

    fn save_if_due(&mut self, done: bool, observer: &dyn Observer) -> Result<(), TrainError> {
        let step = self.state.step;
        let regular = step > 0 && step.is_multiple_of(self.config.run.save_every);
        let best = self.state.best_step == Some(step);
        if self.saved_step == Some(step) || !(done || regular || best) {
            return Ok(());
        }
        self.metrics.sync()?;
        let parent = self.output.checkpoints();
        let path = folder::write(&parent, step, |checkpoint| {
            self.optimizer.write(checkpoint)?;
            self.state.write(checkpoint)?;
            let weights = weights_in(checkpoint, self.config);
            fs::create_dir(&weights).map_err(at(&weights))?;
            if self.config.lora.is_some() {
                self.model.save_adapter(&weights)?;
            } else {
                self.model.save_merged(&weights)?;
                if let Some(tokenizer) = self.tokenizer {
                    tokenizer.save_to_folder(&weights)?;
                }
            }
            Ok(())
        })?;
        self.saved_step = Some(step);
        let newest = folder::list(&parent);
        for (step, path) in newest.iter().skip(self.config.run.keep) {
            if self.state.best_step != Some(*step) {
                folder::delete(path)?;
            }
        }
        observer.saved(step, &path);
        Ok(())
    }

    fn newest_checkpoint(&self) -> Option<PathBuf> {
        let step = self.saved_step?;
        Some(self.output.checkpoints().join(folder::name(step)))
    }

    fn report(&self, outcome: Outcome) -> Result<RunReport, TrainError> {
        let state = &self.state;
        let checkpoint = self.newest_checkpoint();
        let weights = match (&checkpoint, &outcome) {
            (Some(checkpoint), Outcome::Finished | Outcome::StoppedEarly) => {
                self.export(checkpoint)?
            }
            (Some(checkpoint), Outcome::Stopped { .. }) => weights_in(checkpoint, self.config),
            (None, _) => weights_in(self.output.folder(), self.config),
        };
        let best = state
            .best_step
            .map(|step| self.output.checkpoints().join(folder::name(step)));
        let batches = &self.prepared.batches;
        let sequences = &self.prepared.train.sequences;
        Ok(RunReport {
            outcome,
            steps: state.step,
            tokens: state.tokens,
            trained_tokens: state.trained_tokens,
            padding_tokens: state.padding_tokens,
            padding: padding(batches.packing(), batches.passes_per_epoch(), sequences),
            elapsed_s: state.elapsed_s,
            tokens_per_second: state.tokens as f64 / state.elapsed_s.max(f64::MIN_POSITIVE),
            first_loss: self.first_loss,
            last_loss: self.last_loss,
            evaluation: self.evaluation,
            best: state.best_loss.zip(state.best_step),
            peak_memory_bytes: self.peak_memory_bytes(),
            checkpoint,
            best_checkpoint: best.filter(|path| path.exists()),
            weights,
        })
    }

    /// The weights of the last checkpoint under a name that does not change: `adapter/` or `model/`
    /// in the output folder.
    fn export(&self, checkpoint: &Path) -> Result<PathBuf, TrainError> {
        let from = weights_in(checkpoint, self.config);
        let to = weights_in(self.output.folder(), self.config);
        let temporary = to.with_extension("tmp");
        for stale in [&temporary, &to] {
            if stale.exists() {
                fs::remove_dir_all(stale).map_err(at(stale))?;
            }
        }
        fs::create_dir(&temporary).map_err(at(&temporary))?;
        for name in files::files_below(&from).map_err(at(&from))? {
            files::link_or_copy(&from.join(&name), &temporary.join(&name)).map_err(at(&to))?;
        }
        files::sync_folder(&temporary).map_err(at(&temporary))?;
        fs::rename(&temporary, &to).map_err(at(&to))?;
        files::sync_folder(self.output.folder()).map_err(at(self.output.folder()))?;
        Ok(to)
    }
}

/// Where the weights lie in a checkpoint or an output folder.
fn weights_in(folder: &Path, config: &Config) -> PathBuf {
    folder.join(if config.lora.is_some() {
        "adapter"
    } else {
        "model"
    })
}

/// Weights as they were saved: in one file, or in several with an index.
fn read_weights<D: Backend>(
    model: &mut Model<D>,
    config: &Config,
    checkpoint: &Path,
) -> Result<(), TrainError> {
    let folder = weights_in(checkpoint, config);
    let file = match config.lora {
        Some(_) => "adapter_model.safetensors",
        None => "model.safetensors",
    };
    let index = folder.join("model.safetensors.index.json");
    let mut shards: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let shard_of = match index.exists() {
        true => weight_map(&index)?,
        false => HashMap::new(),
    };
    for parameter in model.parameters() {
        let shard = shard_of.get(parameter.name).map_or(file, String::as_str);
        let weight = (parameter.name.to_owned(), parameter.weight);
        shards.entry(shard.to_owned()).or_default().push(weight);
    }
    for (shard, weights) in shards {
        read_tensors(&folder.join(shard), &[], weights)?;
    }
    Ok(())
}

fn weight_map(index: &Path) -> Result<HashMap<String, String>, TrainError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: HashMap<String, String>,
    }
    let text = fs::read(index).map_err(at(index))?;
    let index: Index = serde_json::from_slice(&text).map_err(CheckpointError::json(index))?;
    Ok(index.weight_map)
}
