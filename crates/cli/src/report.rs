//! Blocks of text for users: the data, the plan of a run, and its result.

use crate::terminal;
use console::style;
use std::{fmt::Write, time::Duration};
use tightrope_data::{Preflight, verdicts};
use tightrope_report::{
    numbers::{bytes, counted, duration, grouped, percent, percent_of},
    table::{Cell, Table},
};
use tightrope_run::demo::Demonstration;
use tightrope_train::{
    AdapterPlan, Evaluation, Outcome, Plan, Rewards, RunReport, StatePlan,
    config::{ModuleNames, Quantize, TargetModules},
};

/// A heading, lines of `name  value`, and warnings.
struct Block(String);

impl Block {
    fn new(heading: &str) -> Self {
        Self(style(heading).bold().to_string())
    }

    fn line(&mut self, name: &str, value: impl AsRef<str>) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "\n  {name:<15} {}", value.as_ref());
    }

    fn warning(&mut self, what: impl AsRef<str>) {
        let mark = style("!").yellow().bold();
        let _ = write!(self.0, "\n  {mark} {}", what.as_ref());
    }
}

/// Describes the data before training.
pub(crate) fn preflight(report: &Preflight) -> String {
    let mut block = Block::new("Data");
    for file in &report.files {
        let rows = counted(file.rows, "row");
        let format = file.format.name();
        block.line("file", format!("{}: {rows}, read as {format}", file.path));
    }
    for set in report.sets.iter().filter(|set| set.taken > 0) {
        block.line("set", set.to_string());
    }
    if let Some(pairs) = report.pairs {
        block.line("pairs", grouped(pairs));
    }
    if let Some(good) = report.good_answers {
        block.line("answers", verdicts(good, report.sequences));
    }
    block.line("sequences", grouped(report.sequences));
    block.line("tokens", grouped(report.tokens));
    let share = percent_of(report.trained_tokens, report.tokens);
    block.line(
        "trained tokens",
        format!("{} ({share})", grouped(report.trained_tokens)),
    );
    if let Some(answers) = report.answers_trained() {
        block.line("answers", answers);
    }
    if report.added_eos > 0 {
        let rows = counted(report.added_eos, "row");
        let none = "data.add_end_token = \"never\": to none";
        block.line("end token", format!("added to {rows} ({none})"));
    }
    let l = &report.lengths;
    let lengths = format!(
        "min {}, median {}, 95 % {}, 99 % {}, max {}, mean {:.1}",
        l.min, l.p50, l.p95, l.p99, l.max, l.mean
    );
    let cut = match report.longest > l.max as u64 {
        true => format!(", {} before the cut", grouped(report.longest)),
        false => String::new(),
    };
    block.line("lengths", format!("{lengths}{cut}"));
    for note in report.notes() {
        block.warning(note.replace('\n', "\n  "));
    }
    block.0
}

/// Describes the plan of a run.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut block = Block::new("Plan");
    block.line("model", &plan.model);
    let share = percent_of(plan.trained_parameters, plan.parameters);
    let (trained, all) = (plan.trained_parameters, plan.parameters);
    block.line(
        "parameters",
        format!("{}, {} trained ({share})", grouped(all), grouped(trained)),
    );
    block.line("adapter", adapter(plan.adapter.as_ref()));
    block.line("objective", plan.objective);
    block.line("learning rate", format!("{:e}", plan.learning_rate));
    for state in &plan.optimizer {
        block.line("optimizer", optimizer(state));
    }
    block.line("device", format!("{}, {}", plan.device, plan.precision));
    let rows = format!(
        "{}, {}",
        counted(plan.sequences, "sequence"),
        counted(plan.tokens_per_epoch, "token")
    );
    block.line("epoch", rows);
    if let Some(shared) = plan.shared_tokens_per_epoch {
        block.line("shared", shared_beginnings(shared, plan.tokens_per_epoch));
    }
    let packs = counted(plan.packs, plan.row);
    let capacity = counted(plan.capacity, "token");
    block.line(
        &format!("{}s", plan.row),
        format!("{packs} of at most {capacity}"),
    );
    let from = match plan.first_step {
        0 => String::new(),
        step => format!(", {} done before", grouped(step)),
    };
    let steps = format!(
        "{}{from} ({} an epoch)",
        grouped(plan.total_steps),
        grouped(plan.steps_per_epoch)
    );
    block.line("steps", steps);
    block.line("step", step(plan));
    block.0
}

/// Describes a step on average: `27.4 sequences with 3,112 trained tokens on average; 41 steps an
/// epoch with batch.sequences_per_step = 8`.
fn step(plan: &Plan) -> String {
    let rounded = |number: f64| match number < 100.0 && number.fract() > 0.0 {
        true => format!("{number:.1}"),
        false => grouped(number.round() as u64),
    };
    let plural = if plan.examples_per_step == 1.0 {
        ""
    } else {
        "s"
    };
    let mut text = format!(
        "{} {}{plural} with {} trained tokens on average",
        rounded(plan.examples_per_step),
        plan.example,
        rounded(plan.trained_tokens_per_step)
    );
    if plan.steps_of_eight > plan.steps_per_epoch {
        let steps = counted(plan.steps_of_eight, "step");
        text += &format!("; {steps} an epoch with batch.sequences_per_step = 8");
    }
    text
}

/// Describes what shared beginnings save, beside the tokens that are computed.
pub(crate) fn shared_beginnings(saved: u64, computed: u64) -> String {
    let all = saved + computed;
    format!(
        "beginnings are computed once: {} instead of {} ({} fewer)",
        counted(computed, "token"),
        grouped(all),
        percent_of(saved, all)
    )
}

/// Describes what is trained: `LoRA, rank 16, alpha 32, all linear layers`; an adapter from files
/// has its own settings.
fn adapter(plan: Option<&AdapterPlan>) -> String {
    let Some(AdapterPlan { from, section }) = plan else {
        return "none: every weight is trained".into();
    };
    if let Some(folder) = from {
        return format!("goes on from {}", folder.display());
    }
    let modules = match &section.target_modules {
        TargetModules::AllLinear(_) => "all linear layers".to_owned(),
        TargetModules::Named(ModuleNames::List(names)) => names.join(", "),
        TargetModules::Named(ModuleNames::Expression(expression)) => expression.clone(),
    };
    let mut text = format!(
        "{}, rank {}, alpha {}, {modules}",
        if section.dora { "DoRA" } else { "LoRA" },
        section.r,
        section.alpha
    );
    if section.quantize == Quantize::Nf4 {
        text += ", base in NF4";
    }
    text
}

/// Describes the state of the optimizer: `adamw, 8bit: 2.1 MiB for 1,048,576 parameters in 12
/// tensors`.
fn optimizer(plan: &StatePlan) -> String {
    format!(
        "{}, {}: {} for {} in {}",
        plan.kind,
        plan.state.name(),
        bytes(plan.bytes),
        counted(plan.parameters, "parameter"),
        counted(plan.tensors, "tensor")
    )
}

/// Describes a loss: its perplexity, or what it means for answers.
pub(crate) fn quality(perplexity: Option<f64>, rewards: &Rewards) -> String {
    let margin = rewards
        .rewards_margin
        .map(|margin| format!("margin {margin:.3}"));
    let divergence = rewards.kl.map(|kl| format!("divergence {kl:.3}"));
    let perplexity = perplexity.map(|value| format!("perplexity {value:.3}"));
    let parts = [accuracy(rewards), margin, divergence, perplexity];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Says how often the better answer of a pair is preferred.
fn accuracy(rewards: &Rewards) -> Option<String> {
    let accuracy = rewards.rewards_accuracy?;
    if rewards.rewards_margin == Some(0.0) && accuracy == 0.0 {
        return Some("no answer preferred".into());
    }
    let percent = 100.0 * accuracy;
    Some(format!(
        "better answer preferred in {percent:.1} % of pairs"
    ))
}

/// Describes the result of a run.
pub(crate) fn run(report: &RunReport) -> String {
    let mut block = Block::new(match report.outcome {
        Outcome::Finished if report.steps == report.first_step => "Nothing to do: finished before",
        Outcome::Finished => "Finished",
        Outcome::StoppedEarly => "Stopped early: the evaluation loss no longer fell",
        Outcome::Stopped { .. } => "Stopped, everything is saved",
    });
    block.line("steps", grouped(report.steps));
    if let (Some(first), Some(last)) = (report.first_loss, report.last_loss) {
        block.line("loss", format!("{first:.4} at first, {last:.4} at last"));
    }
    if let Some(evaluation) = &report.evaluation {
        let of = |evaluation: &Evaluation| {
            let quality = quality(evaluation.perplexity, &evaluation.rewards);
            format!("{:.4}, {quality}", evaluation.loss)
        };
        block.line("evaluation", format!("loss {}", of(evaluation)));
        for (name, set) in &evaluation.sets {
            block.line("", format!("{name}: {}", of(set)));
        }
        if let Some((loss, step)) = report.best {
            block.line("", format!("best {loss:.4} after step {step}"));
        }
        if let Some(before) = &report.evaluation_before {
            let accuracy = accuracy(&before.rewards);
            let accuracy = accuracy.map_or(String::new(), |text| format!(", {text}"));
            block.line("", format!("{:.4}{accuracy} before training", before.loss));
        }
    }
    let speed = grouped(report.tokens_per_second.round() as u64);
    let time = duration(Duration::from_secs_f64(report.elapsed_s.max(0.0)));
    let tokens = grouped(report.tokens);
    block.line(
        "speed",
        format!("{tokens} tokens in {time}, {speed} real tokens/s"),
    );
    block.line("padding", padding(report));
    if let Some(peak) = report.peak_memory_bytes {
        block.line("peak memory", bytes(peak));
    }
    let which = match report.best {
        Some((_, best)) if best == report.weights_step => ", the best",
        _ => "",
    };
    let weights = report.weights.display();
    block.line(
        "weights",
        format!("{weights} (step {}{which})", report.weights_step),
    );
    block.0
}

/// Describes the result of the demonstration.
pub(crate) fn demonstration(result: &Demonstration) -> String {
    let mut text = run(&result.report);
    if result.scores.is_empty() {
        return text;
    }
    let asked: usize = result.scores.iter().map(|score| score.asked).sum();
    let right: usize = result.scores.iter().map(|score| score.right).sum();
    let heading = format!(
        "Asked {} that it was not trained on: {right} answered rightly ({})",
        counted(asked as u64, "question"),
        percent_of(right as u64, asked as u64)
    );
    let mut table = Table::new(&["task", ">asked", ">right", "for example", "answer", ""]);
    for score in &result.scores {
        let example = result
            .examples
            .iter()
            .find(|example| example.task == score.task);
        let mut row = vec![
            Cell::from(score.task.name()),
            Cell::from(score.asked),
            Cell::from(score.right),
        ];
        if let Some(example) = example {
            row.push(Cell::from(brief(&example.question, 22)));
            row.push(Cell::from(brief(&example.answer, 10)));
            row.push(match example.right {
                true => Cell::good("right"),
                false => Cell::bad(format!("not {}", brief(&example.expected, 9))),
            });
        }
        table.row(row);
    }
    let _ = write!(text, "\n{}\n{table}", style(heading).bold());
    let spent = result.report.elapsed_s.max(0.0);
    let _ = write!(
        text,
        "\n{}\n  padded batches would have taken {} instead of {}, for the same result",
        style("What padding would have cost").bold(),
        duration(Duration::from_secs_f64(result.padded_seconds.max(0.0))),
        duration(Duration::from_secs_f64(spent)),
    );
    text
}

/// Text on one line, cut to this number of columns.
fn brief(text: &str, columns: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    console::truncate_str(&terminal::printable(&line), columns, "…").into_owned()
}

/// Compares the padding of the run with that of padded batches.
fn padding(report: &RunReport) -> String {
    // The lines are below each other, because together they are wider than a terminal.
    let below = " ".repeat(18);
    let cost = &report.padding;
    let here = percent_of(report.padding_tokens, report.tokens + report.padding_tokens);
    if cost.batch_size < 2 {
        return here;
    }
    let share = |computed: u64| percent(1.0 - cost.tokens as f64 / computed.max(1) as f64);
    format!(
        "{here}\n{below}batches of {}, padded: {}, {:.2} times the tokens\n\
         {below}sorted by length: {}",
        cost.batch_size,
        share(cost.padded_tokens),
        cost.factor(),
        share(cost.bucketed_tokens),
    )
}
