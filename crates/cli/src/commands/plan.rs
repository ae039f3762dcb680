//! `tightrope plan`: memory, time and steps of a run, before it starts.

use crate::{exit::Exit, paths, progress::Bars, terminal::Terminal};
use anyhow::Result;
use serde_json::json;
use std::{path::PathBuf, time::Duration};
use tightrope_report::{
    numbers::{counted, duration, grouped},
    table::{Cell, Table},
};
use tightrope_run::{Available, Memory, Needs, Planner};
use tightrope_train::{Config, config::ConfigError};

const EXAMPLES: &str = "\
Examples:
  tightrope plan my.toml
  tightrope plan my.toml --memory-budget 3GB
  tightrope plan my.toml --set run.recompute=true --set packing.capacity=8192
  tightrope plan my.toml --json

Weights are not read; the data is. The time is an estimate from a product of
the model's size that is measured for a fraction of a second, so other programs
on the machine make it longer. `tightrope train` refuses a run that needs more
memory than the machine has.";

/// Say what a run will need: memory by what it is for, time, and what would make it smaller
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Configuration file (TOML)
    #[arg(value_parser = paths::path())]
    config: PathBuf,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Memory that the run may take, such as 3GB or 800MB [default: what is free now]
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_budget: Option<u64>,
}

/// Runs that a setting is for.
#[derive(Clone, Copy, PartialEq)]
enum For {
    All,
    Adapters,
    AllWeights,
}

/// Settings that take less memory, and what they cost.
const LEVERS: [(For, &[&str], &str); 8] = [
    (
        For::All,
        &["run.recompute=true"],
        "computes each layer's forward pass again in the backward pass",
    ),
    (
        For::All,
        &["precision=bf16"],
        "activations in bf16: other losses, close to those of f32",
    ),
    (
        For::Adapters,
        &["lora.quantize=nf4"],
        "frozen weights in 4 bits: no longer those of the files",
    ),
    (
        For::All,
        &["optimizer.state=8bit"],
        "moments of AdamW in 8 bits: other losses, close to those of f32",
    ),
    (
        For::All,
        &["optimizer.kind=adafactor"],
        "rows and columns instead of a second moment: another optimizer",
    ),
    (
        For::AllWeights,
        &["lora.r=16"],
        "an adapter instead of all weights: another method",
    ),
    (
        For::Adapters,
        &[
            "run.recompute=true",
            "precision=bf16",
            "optimizer.state=8bit",
            "lora.quantize=nf4",
        ],
        "these together",
    ),
    (
        For::AllWeights,
        &[
            "run.recompute=true",
            "precision=bf16",
            "optimizer.state=8bit",
        ],
        "these together",
    ),
];

/// Reads a size: a number with a decimal or binary unit.
fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024f64.powi(2),
        "gib" => 1024f64.powi(3),
        "tib" => 1024f64.powi(4),
        _ => return Err("expected a size such as 3GB, 800MB or 2.5GiB".into()),
    };
    match number.parse::<f64>() {
        Ok(number) if number > 0.0 && number * factor < 1e18 => Ok((number * factor) as u64),
        _ => Err("expected a size above 0, such as 3GB, 800MB or 2.5GiB".into()),
    }
}

/// A setting that takes less memory.
struct Lever {
    sets: Vec<String>,
    cost: &'static str,
    needs: Needs,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = |more: &[&str]| -> Result<Config, ConfigError> {
        let more = more.iter().map(|set| (*set).to_owned());
        let sets: Vec<String> = args.sets.iter().cloned().chain(more).collect();
        Config::load(&args.config, &sets)
    };
    let own = config(&[])?;
    let planner = Planner::new(&own, terminal.threads(), &Bars::default())?;
    let needs = planner.needs(&own)?;
    let available = planner.is_on_processor().then(Available::now).flatten();
    // What this program holds already is part of the need.
    let free = available.map(|now| now.free.saturating_add(needs.memory.program));
    let budget = args.memory_budget.or(free);
    let most = needs.capacity.saturating_mul(256).max(1 << 20);
    let longest = match budget {
        Some(bytes) => planner.longest(&own, bytes, most)?,
        None => None,
    };
    let mut levers = Vec::new();
    let kind = match own.lora {
        Some(_) => For::Adapters,
        None => For::AllWeights,
    };
    for (runs, sets, cost) in LEVERS {
        if runs != For::All && runs != kind {
            continue;
        }
        // What the configuration has already, or cannot have, is no lever.
        let Ok(changed) = config(sets) else { continue };
        let Ok(less) = planner.needs(&changed) else {
            continue;
        };
        if less.memory.total() < needs.memory.total() {
            levers.push(Lever {
                sets: sets.iter().map(|set| (*set).to_owned()).collect(),
                cost,
                needs: less,
            });
        }
    }
    let fits = budget.is_none_or(|bytes| needs.memory.total() <= bytes);
    match terminal.json() {
        true => terminal.json_line(&json!({
            "capacity": needs.capacity,
            "memory": needs.memory,
            "total_bytes": needs.memory.total(),
            "budget_bytes": budget,
            "fits": fits,
            "longest_tokens": longest,
            "steps": needs.steps,
            "tokens_per_epoch": needs.tokens_per_epoch,
            "speed": needs.speed,
            "levers": levers.iter().map(|lever| json!({
                "set": lever.sets,
                "cost": lever.cost,
                "total_bytes": lever.needs.memory.total(),
                "tokens_per_second": lever.needs.speed.map(|speed| speed.tokens_per_second),
            })).collect::<Vec<_>>(),
        }))?,
        false => {
            terminal.line(memory_table(&needs.memory))?;
            terminal.line(format!(
                "\n{}",
                facts(&needs, budget, args.memory_budget.is_some(), longest)
            ))?;
            if !levers.is_empty() {
                terminal.line(format!("\n{}", lever_table(&needs, &levers, budget)))?;
            }
        }
    }
    Ok(match fits {
        true => Exit::Success,
        false => Exit::Failed,
    })
}

/// A size that can be compared with others.
fn megabytes(bytes: u64) -> String {
    format!("{} MB", grouped(bytes.div_ceil(1_000_000)))
}

fn memory_table(memory: &Memory) -> Table {
    let mut table = Table::new(&["Memory", ">Size"]);
    for (name, size) in [
        ("program, data, threads", memory.program),
        ("weights", memory.weights),
        ("adapter", memory.adapter),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("activations", memory.activations),
        ("work space", memory.workspace),
        ("total", memory.total()),
    ] {
        table.row([name.to_owned(), megabytes(size)]);
    }
    table
}

fn facts(needs: &Needs, budget: Option<u64>, is_given: bool, longest: Option<usize>) -> Table {
    let mut table = Table::new(&["Run", ""]);
    let packs = format!("at most {} tokens", grouped(needs.capacity as u64));
    table.row(["largest batch".to_owned(), packs]);
    table.row([
        "steps".to_owned(),
        format!(
            "{}, an epoch has {}",
            grouped(needs.steps),
            counted(needs.tokens_per_epoch, "token")
        ),
    ]);
    if let Some(speed) = needs.speed {
        let rate = grouped(speed.tokens_per_second.round() as u64);
        let time = duration(Duration::from_secs_f64(speed.seconds));
        table.row(["time".to_owned(), format!("about {time}, {rate} tokens/s")]);
    }
    if let Some(budget) = budget {
        let what = match is_given {
            true => "budget",
            false => "free",
        };
        let size = match needs.memory.total() <= budget {
            true => Cell::good(format!("{}: it fits", megabytes(budget))),
            false => Cell::bad(format!("{}: it does not fit", megabytes(budget))),
        };
        table.row([Cell::from(what.to_owned()), size]);
        let longest = match longest {
            Some(tokens) => format!("{} tokens", grouped(tokens as u64)),
            None => "none".to_owned(),
        };
        table.row(["largest batch that fits".to_owned(), longest]);
    }
    table
}

fn lever_table(needs: &Needs, levers: &[Lever], budget: Option<u64>) -> Table {
    let mut table = Table::new(&["Less memory", ">Total", ">Time", "What it costs"]);
    for lever in levers {
        let total = lever.needs.memory.total();
        let size = match budget.is_some_and(|bytes| total <= bytes) {
            true => Cell::good(megabytes(total)),
            false => Cell::from(megabytes(total)),
        };
        let time = lever.needs.speed.zip(needs.speed);
        let time = time.map_or_else(String::new, |(changed, own)| {
            format!("× {:.2}", changed.seconds / own.seconds)
        });
        let sets = lever.sets.iter().map(|set| format!("--set {set}"));
        table.row([
            Cell::from(sets.collect::<Vec<_>>().join(" ")),
            size,
            Cell::from(time),
            Cell::from(lever.cost.to_owned()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_both_systems() {
        assert_eq!(size("3GB"), Ok(3_000_000_000));
        assert_eq!(size("2.5 GiB"), Ok(2_684_354_560));
        assert_eq!(size("17B"), Ok(17));
        for wrong in ["", "3", "9999999999TB", "GB", "-1GB", "3XB", "0", "1.2.3GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
