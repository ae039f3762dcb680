//! Blocks of text for people: what the data is, what a run will do, what it has done.

use crate::{
    numbers::{bytes, duration, grouped, percent, percent_of},
    painting, table,
};
use console::style;
use std::{fmt::Write, time::Duration};
use tightrope_data::Preflight;
use tightrope_train::{AdapterPlan, Outcome, Plan, RunReport, StatePlan, demo::Demonstration};

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

    fn warning(&mut self, count: u64, what: impl AsRef<str>) {
        if count > 0 {
            let mark = style("!").yellow().bold();
            let _ = write!(self.0, "\n  {mark} {} {}", grouped(count), what.as_ref());
        }
    }
}

/// What is known about the data before any training.
pub fn preflight(report: &Preflight) -> String {
    let mut block = Block::new("Data");
    for file in &report.files {
        let rows = grouped(file.rows);
        let format = file.format.name();
        block.line(
            "file",
            format!("{}: {rows} rows, read as {format}", file.path),
        );
    }
    block.line("sequences", grouped(report.sequences));
    block.line("tokens", grouped(report.tokens));
    let share = percent_of(report.trained_tokens, report.tokens);
    block.line(
        "trained tokens",
        format!("{} ({share})", grouped(report.trained_tokens)),
    );
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
    block.warning(report.skipped_rows, "rows skipped:");
    for row in &report.skipped {
        let line = row.line.map_or_else(
            || format!("row {}", row.row),
            |line| format!("line {line}, column {}", row.column.unwrap_or(1)),
        );
        let _ = write!(block.0, "\n      {}, {line}: {}", row.path, row.reason);
    }
    block.warning(report.empty_rows, "rows without a token left out");
    let tokens = grouped(report.truncated_tokens);
    block.warning(
        report.truncated_sequences,
        format!("sequences truncated, {tokens} tokens dropped"),
    );
    block.warning(report.split_rows, "rows split into several sequences");
    let tokens = grouped(report.dropped_tokens);
    block.warning(
        report.dropped_rows,
        format!("rows dropped as too long ({tokens} tokens)"),
    );
    block.warning(
        report.untrained_sequences,
        "sequences have nothing to train",
    );
    block.warning(report.doubled_bos, "rows begin with two BOS tokens");
    block.warning(
        report.missing_eos,
        "rows do not end in an end token: the model will not learn to stop there",
    );
    block.warning(
        report.packed_rows,
        "rows held several sequences, which are taken apart",
    );
    block.warning(
        report.duplicate_rows,
        "rows are the same as one before them",
    );
    if let Some(unused) = report.unused_keys() {
        let mark = style("!").yellow().bold();
        let _ = write!(block.0, "\n  {mark} not used: {unused}");
    }
    if report.template_reads_clock {
        let mark = style("!").yellow().bold();
        let _ = write!(
            block.0,
            "\n  {mark} the chat template reads the clock: another day may give other tokens"
        );
    }
    block.0
}

/// What a run will do.
pub fn plan(plan: &Plan) -> String {
    let mut block = Block::new("Plan");
    block.line("model", &plan.model);
    block.line("device", format!("{}, {}", plan.device, plan.precision));
    let trained = percent_of(plan.trained_parameters, plan.parameters);
    block.line(
        "trained",
        format!(
            "{} of {} parameters ({trained})",
            grouped(plan.trained_parameters),
            grouped(plan.parameters)
        ),
    );
    if let Some(adapter) = &plan.adapter {
        block.line("adapter", self::adapter(adapter));
    }
    block.line("learning rate", format!("{:e}", plan.learning_rate));
    block.line("optimizer", optimizer(&plan.optimizer));
    let rows = format!(
        "{} sequences in {} packs, {} tokens",
        grouped(plan.sequences),
        grouped(plan.packs),
        grouped(plan.tokens_per_epoch)
    );
    block.line("epoch", rows);
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
    block.0
}

/// What is trained of a LoRA adapter; that of files has its own rank and scale.
fn adapter(adapter: &AdapterPlan) -> String {
    let lora = &adapter.section;
    match &adapter.from {
        Some(folder) => folder.display().to_string(),
        None => format!("LoRA, rank {}, alpha {}", lora.r, lora.alpha),
    }
}

/// What the optimizer keeps: `8bit: 2.1 MiB for 1,048,576 parameters in 12 tensors; f32: …`.
fn optimizer(plans: &[StatePlan]) -> String {
    let way = |plan: &StatePlan| {
        format!(
            "{}: {} for {} parameters in {} tensors",
            plan.state.name(),
            bytes(plan.bytes),
            grouped(plan.parameters),
            grouped(plan.tensors)
        )
    };
    let ways: Vec<String> = plans.iter().map(way).collect();
    ways.join("; ")
}

/// What a run has done.
pub fn run(report: &RunReport) -> String {
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
        let best = report.best.map_or_else(String::new, |(loss, step)| {
            format!(" (best {loss:.4} after step {step})")
        });
        let before = report.evaluation_before.map_or_else(String::new, |before| {
            format!(", {:.4} before training", before.loss)
        });
        let (loss, perplexity) = (evaluation.loss, evaluation.perplexity);
        block.line(
            "evaluation",
            format!("loss {loss:.4}, perplexity {perplexity:.3}{best}{before}"),
        );
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

/// What the demonstration has shown.
pub fn demonstration(result: &Demonstration) -> String {
    let mut text = run(&result.report);
    if result.scores.is_empty() {
        return text;
    }
    let asked: usize = result.scores.iter().map(|score| score.asked).sum();
    let right: usize = result.scores.iter().map(|score| score.right).sum();
    let heading = format!(
        "Asked {asked} questions that it was not trained on: {right} answered rightly ({})",
        percent_of(right as u64, asked as u64)
    );
    let mut table = table::table(&["task", ">asked", ">right", "for example"]);
    for score in &result.scores {
        let example = result
            .examples
            .iter()
            .find(|example| example.task == score.task);
        let example = example.map_or_else(String::new, |example| {
            let (question, answer) = (brief(&example.question, 28), brief(&example.answer, 16));
            let verdict = match example.right {
                true => style("right").green().to_string(),
                false => style(format!("wrong: {}", brief(&example.expected, 16)))
                    .red()
                    .to_string(),
            };
            format!("{question} → {answer} ({verdict})")
        });
        table.add_row([
            score.task.name().to_owned(),
            score.asked.to_string(),
            score.right.to_string(),
            example,
        ]);
    }
    let _ = write!(text, "\n{}\n{}", style(heading).bold(), table::text(&table));
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

/// The text on one line, cut to so many columns.
fn brief(text: &str, columns: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    console::truncate_str(&painting::printable(&line), columns, "…").into_owned()
}

/// What was padding here, and what padded batches would have cost.
fn padding(report: &RunReport) -> String {
    let cost = &report.padding;
    let here = percent_of(report.padding_tokens, report.tokens + report.padding_tokens);
    if cost.batch_size < 2 {
        return here;
    }
    let share = |computed: u64| percent(1.0 - cost.tokens as f64 / computed.max(1) as f64);
    format!(
        "{here}; batches of {} padded to their longest: {}, {:.2} times the tokens; sorted by \
         length: {}",
        cost.batch_size,
        share(cost.padded_tokens),
        cost.factor(),
        share(cost.bucketed_tokens),
    )
}
