//! Shows a run in progress: a bar on a terminal, lines on a pipe, JSON for programs.

use crate::{
    progress::{Bars, WIDE, columns, cut, style},
    report,
    terminal::{self, Terminal, printable},
};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tightrope_data::{Preflight, Progress};
use tightrope_report::numbers::{duration, grouped, percent_of};
use tightrope_train::{EvalRow, Observer, Plan, StepRow};

/// Shows a run on the terminal.
pub(crate) struct Screen<'a> {
    terminal: &'a Terminal,
    loading: Bars,
    run: OnceLock<Running>,
    /// Bar of the run, only on a terminal.
    bar: Arc<OnceLock<ProgressBar>>,
}

/// The current part of a run.
struct Running {
    plan: Plan,
    started: Instant,
}

impl<'a> Screen<'a> {
    pub(crate) fn new(terminal: &'a Terminal) -> Self {
        Self {
            terminal,
            loading: Bars::default(),
            run: OnceLock::new(),
            bar: Arc::default(),
        }
    }

    /// Prints a message on standard error above the bar, at any time and from any thread.
    pub(crate) fn announcer(&self) -> impl Fn(&str) + Send + 'static {
        let bar = Arc::clone(&self.bar);
        move |text| match bar.get() {
            // The terminal has written `^C` behind the bar, which is removed with it.
            Some(bar) => bar.suspend(|| terminal::complain(text)),
            None => terminal::complain(text),
        }
    }

    /// Ends the bar; later output is printed below it.
    pub(crate) fn close(&self) {
        if let Some(bar) = self.bar.get() {
            bar.abandon();
        }
    }

    /// Prints a line for users, above the bar if there is one. A reader that has closed the output
    /// cannot stop a run.
    fn say(&self, text: impl fmt::Display) {
        match self.bar.get() {
            Some(bar) => bar.suspend(|| drop(self.terminal.line(text))),
            None => drop(self.terminal.line(text)),
        }
    }

    /// Prints an event for programs: its name, then its fields.
    fn event(&self, name: &str, fields: &impl Serialize) {
        let mut event = json!({ "event": name });
        if let (Some(event), Ok(serde_json::Value::Object(fields))) =
            (event.as_object_mut(), serde_json::to_value(fields))
        {
            event.extend(fields);
        }
        drop(self.terminal.json_line(&event));
    }
}

/// Facts about a step, the most important first, because narrow terminals cut the end.
fn facts(row: &StepRow) -> String {
    format!(
        "loss {:.4}  {} tokens/s  padding {}  grad norm {:.3}  lr {:.2e}",
        row.loss,
        grouped(row.tokens_per_second.round() as u64),
        percent_of(row.padding_tokens, row.tokens + row.padding_tokens),
        row.grad_norm,
        row.learning_rate,
    )
}

/// Time left if the remaining steps take as long as those of this part of the run.
fn left(plan: &Plan, step: u64, elapsed: Duration) -> Duration {
    let done = step.saturating_sub(plan.first_step).max(1);
    elapsed.mul_f64(plan.total_steps.saturating_sub(step) as f64 / done as f64)
}

impl Progress for Screen<'_> {
    fn start(&self, what: &str, total: Option<u64>) {
        self.loading.start(what, total);
    }
    fn advance(&self, n: u64) {
        self.loading.advance(n);
    }
    fn finish(&self) {
        self.loading.finish();
    }
}

impl Observer for Screen<'_> {
    fn loaded(&self, _paths: &[PathBuf], preflight: &Preflight) {
        match self.terminal.json() {
            true => self.event("preflight", preflight),
            false => self.say(report::preflight(preflight)),
        }
    }

    fn planned(&self, plan: &Plan) {
        match self.terminal.json() {
            true => self.event("plan", plan),
            false => self.say(report::plan(plan)),
        }
        if self.terminal.is_live() {
            let template = if columns() < WIDE {
                "{msg}"
            } else {
                "{bar:16.green/dim} {msg}"
            };
            let bar = ProgressBar::new(plan.total_steps)
                .with_position(plan.first_step)
                .with_style(style(template));
            // The first step may take a while, so a message shows that it runs.
            bar.set_message("first step …");
            bar.tick();
            drop(self.bar.set(bar));
        }
        let running = Running {
            plan: plan.clone(),
            started: Instant::now(),
        };
        drop(self.run.set(running));
    }

    fn stepped(&self, row: &StepRow) {
        if self.terminal.json() {
            return self.event("step", row);
        }
        let Some(run) = self.run.get() else { return };
        let left = duration(left(&run.plan, row.step, run.started.elapsed()));
        let facts = facts(row);
        let total = run.plan.total_steps;
        match self.bar.get() {
            Some(bar) => {
                let text = format!("{}/{total}  {left} left  {facts}", row.step);
                let room = columns().saturating_sub(if columns() < WIDE { 4 } else { 21 });
                bar.set_message(cut(&text, room).into_owned());
                bar.set_position(row.step);
            }
            None => {
                self.say(format!("step {}/{total}  {facts}  {left} left", row.step));
            }
        }
    }

    fn evaluated(&self, row: &EvalRow) {
        if self.terminal.json() {
            return self.event("evaluation", row);
        }
        let when = match row.step {
            0 => "before the first step".to_owned(),
            step => format!("after step {step}"),
        };
        self.say(format!(
            "{when}: evaluation loss {:.4}, {}",
            row.eval_loss,
            report::quality(row.eval_perplexity, &row.rewards)
        ));
        for (name, set) in &row.eval_sets {
            let quality = report::quality(set.perplexity, &set.rewards);
            self.say(format!("  {name}: {:.4}, {quality}", set.loss));
        }
    }

    fn saved(&self, step: u64, checkpoint: &Path) {
        match self.terminal.json() {
            true => self.event("checkpoint", &json!({ "step": step, "path": checkpoint })),
            false => self.say(format!("saved {}", checkpoint.display())),
        }
    }

    fn notice(&self, text: &str) {
        match self.terminal.json() {
            true => self.event("notice", &json!({ "text": text })),
            false => self.say(format!(
                "{} {}",
                console::style("note:").yellow().bold(),
                printable(text)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_steps_of_this_part() {
        let plan = Plan {
            first_step: 90,
            total_steps: 100,
            steps_per_epoch: 10,
            ..Plan::default()
        };
        let elapsed = Duration::from_secs(10);
        assert_eq!(left(&plan, 95, elapsed), Duration::from_secs(10));
        assert_eq!(left(&plan, 100, elapsed), Duration::ZERO);
        assert_eq!(left(&plan, 90, elapsed), Duration::from_secs(100));
    }
}
