//! `tightrope pack`: every algorithm side by side on a data set, lengths or a histogram.

mod chart;
mod input;
mod output;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets::UTF8_HORIZONTAL_ONLY};
use serde::Serialize;
use tightrope_data::packing::{Algorithm, CutCounts, Layout, Overlong, Packer, Packing, Padding};
use tightrope_train::Config;

use crate::{exit::Exit, terminal::Terminal};
use chart::Fill;
use input::Input;

const EXAMPLES: &str = "\
Examples:
  tightrope pack my.toml                      the training data of a configuration
  tightrope pack --lengths lengths.txt --capacity 2048
  tightrope pack --histogram counts.json --capacity 512 --algorithm lpfhp --depth 3 --json
  tightrope pack --lengths lengths.txt --capacity 2048 --algorithm best-fit --improve-ms 10000 \\
      --svg packs.svg --write packing.json

A file of lengths has one length a line. A histogram is a JSON array, or an object with an array
`counts`, with the number of sequences of length i+1 at index i.";

/// Compare packing algorithms: packs, efficiency, distance from the optimum, cost of padding
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "input", required = true, multiple = false, args = ["config", "lengths", "histogram"])]
pub struct Args {
    /// Configuration file (TOML): its training data, at its capacity and seed
    config: Option<PathBuf>,

    /// Set a key over the file's value
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,

    /// File of lengths, one a line
    #[arg(long, value_name = "FILE")]
    lengths: Option<PathBuf>,

    /// JSON file with the number of sequences of length i+1 at index i
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,

    /// Tokens in a pack [default: packing.capacity of the configuration]
    #[arg(long, value_name = "N", required_unless_present = "config")]
    capacity: Option<u64>,

    #[command(flatten)]
    options: Options,
}

/// How to pack, and what to do with the result.
#[derive(clap::Args)]
struct Options {
    /// Tokens in a pack.
    #[arg(skip)]
    capacity: u64,

    /// One algorithm [default: all that pack]
    #[arg(long, value_name = "NAME")]
    algorithm: Option<Algorithm>,

    /// Largest number of sequences in a pack [default: unlimited; 3 for nnlshp]
    #[arg(long, value_name = "D")]
    depth: Option<u32>,

    /// Sequences in the batches that packing is compared with
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch_size: u32,

    /// Packs that `streaming` keeps open
    #[arg(long, value_name = "N", default_value_t = 1024)]
    window: usize,

    /// Sequences longer than the capacity: truncate, split, drop or error
    #[arg(long, value_name = "WHAT", default_value = "truncate", value_parser = overlong)]
    overlong: Overlong,

    /// Shuffles the packs and sequences of equal length
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Milliseconds to look for fewer packs than the algorithm finds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    improve_ms: u64,

    /// Draw the lengths and how full the packs are
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Store the packing (of `best-fit` unless --algorithm is given) as JSON; needs lengths
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn overlong(name: &str) -> Result<Overlong, String> {
    let quoted = serde_json::Value::String(name.into());
    serde_json::from_value(quoted).map_err(|_| "one of truncate, split, drop, error".into())
}

pub fn run(args: Args, terminal: &Terminal) -> anyhow::Result<Exit> {
    let mut options = args.options;
    let input = match (&args.config, &args.lengths, &args.histogram) {
        (Some(file), _, _) => {
            let config = Config::load(file, &args.sets)?;
            options.capacity = config.packing.capacity;
            input::data_set(&config)?
        }
        (_, Some(file), _) => input::lengths(file)?,
        (_, _, Some(file)) => input::histogram(file)?,
        _ => bail!("give a configuration, --lengths FILE or --histogram FILE"),
    };
    options.capacity = args.capacity.unwrap_or(options.capacity);
    compare(&input, &options, terminal)?;
    Ok(Exit::Success)
}

/// One algorithm's result, as programs read it.
#[derive(Serialize)]
struct Row {
    algorithm: Algorithm,
    depth: Option<u32>,
    packs: u64,
    efficiency: f64,
    lower_bound: u64,
    seconds: f64,
}

struct Outcome {
    row: Row,
    cuts: CutCounts,
    computed_tokens: u128,
    /// `None` where packs depend on an order that a histogram does not have.
    fill: Option<Fill>,
    packing: Option<Packing>,
}

/// Beyond this, NNLSHP's enumeration takes from seconds to minutes: only on request.
const NNLSHP_UNASKED: u64 = 512;

/// Packs `input` with one algorithm or all and shows the results.
fn compare(input: &Input, options: &Options, terminal: &Terminal) -> anyhow::Result<()> {
    if options.write.is_some() && input.lengths.is_none() {
        bail!("--write needs the sequences' lengths; a histogram does not say which is which");
    }
    let algorithms = match options.algorithm {
        Some(algorithm) => vec![algorithm],
        None => Algorithm::ALL
            .into_iter()
            .filter(|a| a.layout() == Layout::Packed)
            .filter(|&a| a != Algorithm::Nnlshp || options.capacity <= NNLSHP_UNASKED)
            .collect(),
    };
    let mut outcomes = Vec::new();
    for (index, &algorithm) in algorithms.iter().enumerate() {
        let mut outcome = pack(input, options, algorithm)
            .with_context(|| format!("cannot pack {} with {algorithm}", input.name.display()))?;
        // Only the first packing is used again; ten million sequences are 120 MB of it.
        if index > 0 {
            outcome.packing = None;
        }
        outcomes.push(outcome);
    }
    let first = outcomes.first().context("no algorithm")?;
    if let (Some(file), Some(packing)) = (&options.write, &first.packing) {
        output::write_atomically(file, |out| Ok(serde_json::to_writer(out, packing)?))?;
    }
    if let Some(file) = &options.svg {
        let title = format!("{} at {}", first.row.algorithm, options.capacity);
        let svg = chart::svg(&title, &input.histogram, first.fill.as_ref())?;
        output::write_atomically(file, |out| Ok(out.write_all(svg.as_bytes())?))?;
    }
    if terminal.json() {
        let rows: Vec<&Row> = outcomes.iter().map(|outcome| &outcome.row).collect();
        return terminal.json_line(&rows);
    }
    terminal.line(describe(input, first))?;
    terminal.line(chart::lengths(&input.histogram))?;
    if let Some(fill) = &first.fill {
        terminal.line(format!(
            "Packs of {} by how full they are",
            first.row.algorithm
        ))?;
        terminal.line(fill.bars())?;
    }
    terminal.line(table(&outcomes, options, input)?)?;
    if options.algorithm.is_none() && options.capacity > NNLSHP_UNASKED {
        terminal.line("nnlshp is slow at this capacity: --algorithm nnlshp --depth 2 runs it.")?;
    }
    Ok(())
}

fn pack(input: &Input, options: &Options, algorithm: Algorithm) -> anyhow::Result<Outcome> {
    let packer = Packer {
        depth: options.depth,
        batch_size: options.batch_size,
        window: options.window,
        overlong: options.overlong,
        seed: Some(options.seed),
        improve_ms: options.improve_ms,
        ..Packer::new(algorithm, options.capacity)
    };
    let row = |packs, efficiency, lower_bound, start: Instant| Row {
        algorithm,
        depth: packer.effective_depth(),
        packs,
        efficiency,
        lower_bound,
        seconds: start.elapsed().as_secs_f64(),
    };
    let start = Instant::now();
    Ok(match &input.lengths {
        Some(lengths) => {
            let packing = packer.pack(lengths)?;
            let (packs, bound) = (packing.len() as u64, packing.lower_bound());
            let row = row(packs, packing.efficiency(), bound, start);
            let tokens = packing.iter().map(|pack| {
                let tokens = pack.iter().map(|piece| u64::from(piece.length)).sum();
                (tokens, 1)
            });
            Outcome {
                row,
                cuts: packing.cuts().counts(options.capacity),
                computed_tokens: packing.computed_tokens(),
                fill: Some(Fill::new(options.capacity, tokens)),
                packing: Some(packing),
            }
        }
        None => {
            let packing = packer.pack_histogram(&input.histogram)?;
            let row = row(
                packing.packs,
                packing.efficiency(),
                packing.lower_bound,
                start,
            );
            let fill = packing.strategies.as_ref().map(|strategies| {
                let tokens = strategies.iter().map(|(count, runs)| {
                    let tokens = runs.iter().map(|run| u64::from(run.length) * run.repeat);
                    (tokens.sum(), count)
                });
                Fill::new(options.capacity, tokens)
            });
            Outcome {
                row,
                cuts: packing.cuts,
                computed_tokens: packing.computed_tokens,
                fill,
                packing: None,
            }
        }
    })
}

fn describe(input: &Input, first: &Outcome) -> String {
    let histogram = &input.histogram;
    let mut text = format!(
        "{}: {} sequences, {} tokens, longest {}",
        input.name.display(),
        histogram.sequences(),
        histogram.tokens(),
        histogram.max_length(),
    );
    let cuts = &first.cuts;
    for (count, what) in [
        (cuts.empty, "empty, dropped"),
        (cuts.dropped, "over-long, dropped"),
        (cuts.truncated, "truncated"),
        (cuts.split, "split"),
        (cuts.lost_tokens, "tokens lost"),
    ] {
        if count > 0 {
            text += &format!("; {count} {what}");
        }
    }
    text
}

fn table(outcomes: &[Outcome], options: &Options, input: &Input) -> anyhow::Result<String> {
    let (fitting, _) = input.histogram.fit(options.capacity, options.overlong)?;
    let padded = match &input.lengths {
        Some(lengths) if options.overlong == Overlong::Truncate => {
            let longest = u32::try_from(options.capacity).unwrap_or(u32::MAX);
            let fitting = lengths.iter().filter(|&&length| length > 0);
            Padding::in_order(fitting.map(|&l| l.min(longest)), options.batch_size)
        }
        _ => Padding::expected(&fitting, options.batch_size),
    };
    let bucketed = Padding::bucketed(&fitting, options.batch_size);

    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "algorithm",
        "depth",
        "packs",
        "efficiency",
        "above the bound",
        "seconds",
        "over padded",
        "over bucketed",
    ]);
    for Outcome {
        row,
        computed_tokens,
        ..
    } in outcomes
    {
        let over = |padding: &Padding| match computed_tokens {
            0 => "-".into(),
            tokens => format!("{:.2}x", padding.computed_tokens / *tokens as f64),
        };
        table.add_row([
            row.algorithm.to_string(),
            row.depth.map_or("-".into(), |depth| depth.to_string()),
            row.packs.to_string(),
            format!("{:.3} %", 100.0 * row.efficiency),
            match row.packs - row.lower_bound {
                0 => "optimal".into(),
                above => format!("+{above}"),
            },
            format!("{:.4}", row.seconds),
            over(&padded),
            over(&bucketed),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    Ok(format!(
        "{table}\nBatches of {}: {:.1} % padding in {} order, {:.2} % when bucketed by length.\n\
         Without any padding: {:.2}x and {:.2}x (predicted).",
        options.batch_size,
        100.0 * padded.share(),
        if input.lengths.is_some() {
            "this"
        } else {
            "random"
        },
        100.0 * bucketed.share(),
        padded.speed_up(),
        bucketed.speed_up(),
    ))
}
