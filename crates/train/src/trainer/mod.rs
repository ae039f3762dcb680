//! The step loop: batches, gradients, update, evaluation, checkpoints.

mod plan;
mod references;
mod save;

use crate::{
    Config, Metrics, Observer, Optimizer, Outcome, Output, Prepared, RunOptions, RunReport,
    Schedule, StepRow, StopFlag, TrainError,
    checkpoint::{Identity, Retention, State},
    config::{ObjectiveKind, ScheduleKind},
    diagnosis,
    evaluate::evaluate_packed,
    gradient_norm,
    metrics::{EvalRow, peak_memory_bytes},
    objective::{self, Objective, References, Results, Set, Totals, kto},
    optimizer,
    rank::Rank,
};
use save::read_weights;
use std::{sync::Arc, time::Instant};
use tightrope_data::{Examples, Tokenizer};
use tightrope_model::{Backend, TrainableModel};
use tightrope_packing::{Batch, random};
use tightrope_report::numbers::counted;

/// Trains a model on prepared data, in an output folder.
///
/// The result of a step is a function of configuration, data and step number alone; a run that was
/// stopped and resumed therefore ends with the same bits as one that never stopped.
pub struct Trainer<'a, D: Backend> {
    config: &'a Config,
    output: Output,
    prepared: Prepared<'a>,
    tokenizer: Option<&'a Tokenizer>,
    model: TrainableModel<D>,
    objective: Box<dyn Objective<D>>,
    /// What the objective compares with, to be saved.
    references: Option<Arc<References>>,
    optimizer: Optimizer<D>,
    schedule: Schedule,
    total_steps: u64,
    metrics: Metrics,
    state: State,
    /// Step of the newest checkpoint.
    saved_step: Option<u64>,
    retention: Retention,
    /// Number of steps done before this part of the run.
    first_step: u64,
}

impl<'a, D: Backend> Trainer<'a, D> {
    /// Sets up the run; if it is resumed, weights and optimizer come from the checkpoint. Results
    /// of an earlier run are removed if this run may overwrite them.
    pub fn new(
        config: &'a Config,
        options: &RunOptions,
        mut output: Output,
        prepared: Prepared<'a>,
        tokenizer: Option<&'a Tokenizer>,
        mut model: TrainableModel<D>,
        observer: &dyn Observer,
    ) -> Result<Self, TrainError> {
        prepared.check_kind(config)?;
        config.objective.check_model(model.config())?;
        let ratio = config
            .lora
            .as_ref()
            .map_or(1.0, |lora| lora.lora_plus_ratio);
        model.set_noise(config.run.neftune_noise_alpha);
        let mut optimizer = Optimizer::new(&mut model, &config.optimizer, ratio)?;
        let total_steps = prepared.batches.total_steps(config);
        let identity = Identity::new(config, &prepared.facts());
        let mut state = State::new(identity.clone());
        // The weights are still those of the reference model.
        let references =
            References::find(config, &identity, &output, &mut model, &prepared, observer)?;
        if let Some((checkpoint, saved)) = output.resume() {
            let changes = saved.identity.changes(&identity);
            if !changes.is_empty() && !options.allow_change {
                return Err(TrainError::Changed { changes });
            }
            for change in &changes {
                observer.notice(&format!("changed since the checkpoint: {change}"));
            }
            let goes_on = saved.step < total_steps && saved.total_steps != total_steps;
            if goes_on && Schedule::depends_on_length(&config.schedule) {
                observer.notice(&format!(
                    "the run now has {} instead of {}: from step {} on the learning \
                     rate follows the schedule of the new length, so the result is not that of a run \
                     of that length from the start",
                    counted(total_steps, "step"),
                    saved.total_steps,
                    saved.step + 1,
                ));
            }
            read_weights(&mut model, config, checkpoint)
                .map_err(|error| TrainError::of_changes(&changes, error))?;
            optimizer.read(&mut model, checkpoint)?;
            state = saved.clone();
            state.identity = identity;
            if changes
                .iter()
                .any(|change| change.key.starts_with("objective."))
            {
                state.forget_losses();
                observer
                    .notice("losses of another objective are not compared with those from here on");
            }
        }
        state.total_steps = total_steps;
        if config.objective.kind == ObjectiveKind::Kto {
            let said = kto::imbalance(&config.objective, prepared.batches.examples());
            said.iter().for_each(|text| observer.notice(text));
        }
        output.begin(observer)?;
        let mut retention = Retention::default();
        let saved_step = output.resume().map(|(_, state)| state.step);
        saved_step.iter().for_each(|step| retention.is_whole(*step));
        let metrics = Metrics::open(output.folder(), state.step, state.evaluated_step)?;
        Ok(Self {
            schedule: Schedule::new(
                &config.schedule,
                config.optimizer.learning_rate,
                total_steps,
            ),
            saved_step,
            retention,
            first_step: state.step,
            config,
            output,
            prepared,
            tokenizer,
            model,
            objective: objective::of(config, references.clone()),
            references,
            optimizer,
            total_steps,
            metrics,
            state,
        })
    }

    /// Runs to the end, or until `stop` is requested; in that case the current step is finished and
    /// saved.
    pub fn run(
        &mut self,
        stop: &StopFlag,
        observer: &dyn Observer,
    ) -> Result<RunReport, TrainError> {
        let _heard = stop.heard();
        observer.planned(&self.plan()?);
        self.say_if_warmup_does_not_end(observer);
        self.optimizer.hide_averages(&mut self.model)?;
        self.check_weights()?;
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
                self.say_if_nothing_was_left(&outcome, observer);
                self.say_if_worse_than_before(&outcome, observer);
                self.optimizer.show_averages(&mut self.model)?;
                return self.report(outcome, observer);
            }
            self.step(observer)?;
        }
    }

    fn say_if_warmup_does_not_end(&self, observer: &dyn Observer) {
        let Some(warmup) = self.schedule.unfinished_warmup() else {
            if let Some(decay) = self.schedule.unfinished_decay() {
                observer.notice(&format!(
                    "the run ends before its decay of {} (`schedule.decay_{}`), which begins after \
                     the warm-up: the learning rate falls to {:.2e}",
                    counted(decay, "step"),
                    match self.config.schedule.kind {
                        ScheduleKind::Wsd {
                            decay_ratio: Some(_),
                            ..
                        } => "ratio",
                        _ => "steps",
                    },
                    self.schedule.learning_rate(self.total_steps),
                ));
            }
            return;
        };
        let highest = self.config.optimizer.learning_rate;
        observer.notice(&format!(
            "the run ends before its warm-up of {} (`schedule.warmup_steps`): the learning rate \
             only rises, to {:.2e} instead of {highest:e}",
            counted(warmup, "step"),
            self.schedule.learning_rate(self.total_steps),
        ));
    }

    /// Says that no evaluation was as good as the one before the first step.
    fn say_if_worse_than_before(&self, outcome: &Outcome, observer: &dyn Observer) {
        let before = self
            .state
            .evaluation_before
            .as_ref()
            .map(|before| before.loss);
        let (Some(before), Some(best)) = (before, self.state.best_loss) else {
            return;
        };
        let ended = matches!(outcome, Outcome::Finished | Outcome::StoppedEarly);
        if ended && best > before {
            observer.notice(&format!(
                "the evaluation loss was {before:.4} before the first step and at best {best:.4} after \
                 it: the model has not become better on this data; lower `optimizer.learning_rate`, or \
                 train on more data"
            ));
        }
    }

    fn say_if_nothing_was_left(&self, outcome: &Outcome, observer: &dyn Observer) {
        let step = self.state.step;
        if step == 0 || step != self.first_step {
            return;
        }
        match outcome {
            Outcome::Finished => observer.notice(&format!(
                "nothing to do: the run is finished, with step {step} of {}; to go on, raise \
                 `run.max_steps` or `run.epochs`, such as --set run.max_steps={}",
                self.total_steps,
                2 * step,
            )),
            Outcome::StoppedEarly => observer.notice(&format!(
                "nothing to do: the run stopped early after step {step}, as `run.patience` says; to go \
                 on, raise that"
            )),
            Outcome::Stopped { .. } => (),
        }
    }

    /// Peak memory of the GPU, if there is one, otherwise of the process.
    fn peak_memory_bytes(&self) -> Option<u64> {
        match self.model.device().peak_bytes() {
            Some(bytes) => Some(bytes as u64),
            None => peak_memory_bytes(),
        }
    }

    /// The model, with the weights that the run left after the last step.
    pub fn into_model(self) -> TrainableModel<D> {
        self.model
    }

    fn step(&mut self, observer: &dyn Observer) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step + 1;
        let passes = self.prepared.batches.step(step)?;
        let count = |tokens: fn(&Batch) -> usize| passes.iter().map(|b| tokens(b) as u64).sum();
        let trained_tokens: u64 = count(Batch::trained_tokens);
        let tokens: u64 = count(Batch::real_tokens);
        let computed: u64 = count(Batch::len);
        let totals = Totals::of(&passes);
        let examples = self.prepared.batches.examples();
        let members = objective::members(&passes);
        self.objective
            .begin(&mut self.model, examples, &members, Set::Train)?;
        let salt = random::at(self.config.seed, step);
        self.model.zero_gradients()?;
        let mut results = Results::default();
        let hidden = self.model.config().architecture().hidden;
        for pass in Rank::ALONE.share(&passes, hidden) {
            let (objective, model) = (&self.objective, &mut self.model);
            results += objective.pass(model, &passes[pass], totals, salt)?;
        }
        let Results { loss, rewards } = results;
        let grad_norm = gradient_norm(&mut self.model)?;
        if !loss.is_finite() || !grad_norm.is_finite() {
            self.check_weights()?;
            return Err(TrainError::NotFinite {
                step,
                what: if loss.is_finite() {
                    "the gradient"
                } else {
                    "the loss"
                },
                sequences: diagnosis::culprits(
                    &mut self.model,
                    &*self.objective,
                    &passes,
                    salt,
                    &self.prepared,
                )?,
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
        self.state.first_loss.get_or_insert(loss);
        self.state.last_loss = Some(loss);
        let row = StepRow {
            step,
            loss,
            rewards,
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

    /// Refuses weights that are infinite or not a number. Earlier checkpoints are finite.
    fn check_weights(&mut self) -> Result<(), TrainError> {
        match optimizer::weights_are_finite(&mut self.model)? {
            true => Ok(()),
            false => Err(self.not_finite("weights")),
        }
    }

    /// Refuses moments of the optimizer that are not finite; they can overflow while weights do not
    /// change.
    fn check_moments(&mut self) -> Result<(), TrainError> {
        match self.optimizer.is_finite(self.model.device())? {
            true => Ok(()),
            false => Err(self.not_finite("moments of the optimizer")),
        }
    }

    fn not_finite(&self, what: &'static str) -> TrainError {
        TrainError::WeightsNotFinite {
            step: self.state.step,
            what,
            checkpoint: self.newest_checkpoint(),
        }
    }

    /// Evaluates if it is due: before the first step, after the last, and as often as configured;
    /// returns whether nothing is left to evaluate at this step. An evaluation that was stopped
    /// half way is repeated when the run is resumed.
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
        let known = self.state.evaluated_step.is_some_and(|known| known >= step);
        let due = !known && (step == 0 || regular || finished);
        if !due || self.prepared.eval.is_none() {
            return Ok(true);
        }
        self.check_weights()?;
        let Some((data, sets)) = &self.prepared.eval else {
            return Ok(true);
        };
        let (objective, examples) = (&mut *self.objective, Examples::from(*data));
        self.optimizer.show_averages(&mut self.model)?;
        let evaluated = evaluate_packed(&mut self.model, objective, examples, sets, stop)?;
        self.optimizer.hide_averages(&mut self.model)?;
        let Some(evaluation) = evaluated else {
            return Ok(false);
        };
        let row = EvalRow {
            step,
            eval_loss: evaluation.loss,
            eval_perplexity: evaluation.perplexity,
            rewards: evaluation.rewards,
            eval_tokens: evaluation.tokens,
            eval_trained_tokens: evaluation.trained_tokens,
            eval_sets: evaluation.sets.clone(),
            elapsed_s: self.state.elapsed_s,
        };
        self.state.evaluated_step = Some(step);
        let loss = evaluation.loss;
        self.state.evaluation = Some(evaluation);
        if step == 0 {
            self.state
                .evaluation_before
                .clone_from(&self.state.evaluation);
        } else if self.state.best_loss.is_none_or(|best| loss < best) {
            self.state.best_loss = Some(loss);
            self.state.best_step = Some(step);
            self.state.evaluations_without_gain = 0;
        } else if regular {
            self.state.evaluations_without_gain += 1;
        }
        self.metrics.write(&row)?;
        observer.evaluated(&row);
        Ok(true)
    }
}
