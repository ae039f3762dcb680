//! `tightrope pack`: compares every algorithm on a data set, lengths or a histogram.

mod bins;
mod input;
mod output;

use std::{
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::ProgressBar;
use serde::Serialize;
use tightrope_data::packing::{
    Algorithm, CutCounts, Layout, Overlong, PackError, Packer, Packing, Padding,
};
use tightrope_report::{
    chart::{self, bars},
    numbers::{counted, grouped},
    table::Table,
};
use tightrope_train::{Config, Observer, batches};

use crate::{
    exit::Exit,
    paths,
    progress::{Bars, WIDE, columns, style},
    terminal::Terminal,
};
use bins::Fill;
use input::Input;

const EXAMPLES: &str = "\
Examples:
  tightrope pack my.toml                the training data of a configuration
  tightrope pack my.toml --improve-ms 10000 --write packing.json
  tightrope train my.toml --set packing.file=packing.json
  tightrope pack --lengths lengths.txt --capacity 2048
  tightrope pack --lengths lengths.txt --capacity 2048 --svg packs.svg
  tightrope pack --histogram counts.json --capacity 512 --json
  tightrope pack --histogram counts.json --capacity 512 \\
      --algorithm lpfhp --depth 3

A file of lengths has one length a line. A histogram is a JSON array, or an
object with an array `counts`, with the number of sequences of length i+1 at
index i.";

/// Compare packing algorithms: packs, efficiency, distance from the optimum, cost of padding
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
#[group(id = "input", required = true, multiple = false, args = ["config", "lengths", "histogram"])]
pub(crate) struct Args {
    /// Configuration file (TOML), whose training data is packed with its capacity and seed
    #[arg(value_parser = paths::path())]
    config: Option<PathBuf>,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,

    /// File with one length per line
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    lengths: Option<PathBuf>,

    /// JSON file with the number of sequences of length i+1 at index i
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    histogram: Option<PathBuf>,

    /// Number of tokens in a pack [default: packing.capacity of the configuration]
    #[arg(
        long,
        value_name = "N",
        required_unless_present = "config",
        allow_negative_numbers = true, value_parser = whole::<u64>
    )]
    capacity: Option<u64>,

    #[command(flatten)]
    options: Options,

    #[command(flatten)]
    files: Files,
}

/// Packing options; absent options come from the configuration.
#[derive(clap::Args)]
struct Options {
    /// Algorithm to run [default: all that pack]
    #[arg(long, value_name = "NAME", value_parser = algorithm())]
    algorithm: Option<Algorithm>,

    /// Largest number of sequences in a pack [default: that of the configuration; unlimited; 3 for nnlshp]
    #[arg(long, value_name = "D", allow_negative_numbers = true, value_parser = whole::<u32>)]
    depth: Option<u32>,

    /// Number of sequences in the batches that packing is compared with [default: that of the
    /// configuration; 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u32>)]
    batch_size: Option<u32>,

    /// Number of packs that `streaming` keeps open [default: that of the configuration; 1024]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<usize>)]
    window: Option<usize>,

    /// Treatment of sequences longer than the capacity
    #[arg(long, value_name = "WHAT", default_value = "truncate", value_parser = overlong())]
    overlong: Overlong,

    /// Seed that shuffles the packs and sequences of equal length [default: that of the
    /// configuration; 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = whole::<u64>)]
    seed: Option<u64>,

    /// Milliseconds to look for fewer packs than the algorithm finds
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 0,
        allow_negative_numbers = true, value_parser = whole::<u64>
    )]
    improve_ms: u64,
}

/// Files for the result.
#[derive(clap::Args)]
struct Files {
    /// Draw the lengths and the fill of the packs
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    svg: Option<PathBuf>,

    /// Store the packing (of --algorithm, or of the configuration's mode, or best-fit) as JSON, for
    /// `packing.file` of a configuration; needs lengths
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    write: Option<PathBuf>,
}

fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let bits = 8 * size_of::<T>();
    text.parse()
        .map_err(|_| format!("not a whole number from 0 on that fits {bits} bits"))
}

/// Names as data: the help lists them, and a wrong name gets the nearest as a suggestion.
fn algorithm() -> impl TypedValueParser<Value = Algorithm> {
    PossibleValuesParser::new(Algorithm::ALL.map(Algorithm::name))
        .try_map(|name| name.parse::<Algorithm>())
}

fn overlong() -> impl TypedValueParser<Value = Overlong> {
    PossibleValuesParser::new(["truncate", "split", "drop", "error"])
        .try_map(|name| serde_json::from_value::<Overlong>(name.into()))
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> anyhow::Result<Exit> {
    let (input, packer) = match (&args.config, &args.lengths, &args.histogram) {
        (Some(file), _, _) => {
            let mut config = Config::load(file, &args.sets)?;
            // The longest answer of a pair follows from the capacity, and so do groups.
            let whole = config.objective.kind.compares() || config.packing.share_prefix;
            if let (Some(capacity), true) = (args.capacity, whole) {
                let set = format!("packing.capacity={capacity}");
                config = Config::load(file, &[&args.sets[..], &[set]].concat())?;
            }
            output::check_steps(&config, &args.files)?;
            let mut packer = batches::packer(&config);
            if config.batch.sequences_per_step.is_none() {
                packer.batch_size = BATCH_SIZE;
            }
            (input::data_set(&config)?, Some(packer))
        }
        (_, Some(file), _) => (input::lengths(file)?, None),
        (_, _, Some(file)) => (input::histogram(file)?, None),
        _ => bail!("give a configuration, --lengths FILE or --histogram FILE"),
    };
    if input.histogram.sequences() == 0 {
        bail!("{}: no sequences", input.name.display());
    }
    let mut packer = packer.unwrap_or_else(|| Packer {
        batch_size: BATCH_SIZE,
        seed: Some(0),
        ..Packer::new(Algorithm::BestFit, 1)
    });
    let options = args.options;
    packer.capacity = args.capacity.unwrap_or(packer.capacity);
    packer.algorithm = options.algorithm.unwrap_or(packer.algorithm);
    packer.depth = options.depth.or(packer.depth);
    packer.batch_size = options.batch_size.unwrap_or(packer.batch_size);
    packer.window = options.window.unwrap_or(packer.window);
    packer.overlong = options.overlong;
    packer.seed = options.seed.or(packer.seed);
    packer.improve_ms = options.improve_ms;
    if input.whole {
        if packer.algorithm.cuts_sequences() || packer.overlong == Overlong::Split {
            bail!(
                "pairs of answers, and sequences that share a beginning, cannot be cut: choose \
                 another --algorithm or --overlong"
            );
        }
        packer.overlong = Overlong::Error;
    }
    compare(
        &input,
        &packer,
        options.algorithm.is_none(),
        &args.files,
        terminal,
    )?;
    Ok(Exit::Success)
}

const BATCH_SIZE: u32 = 8;

/// Result of one algorithm, for programs.
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
    /// `None` if packs depend on an order that a histogram does not have.
    fill: Option<Fill>,
    packing: Option<Packing>,
}

/// Largest capacity at which NNLSHP, which takes minutes above it, runs without request.
const NNLSHP_UNASKED: u64 = 512;

/// Packs `input` with `packer`, or with all packing algorithms, and shows the results.
fn compare(
    input: &Input,
    packer: &Packer,
    all: bool,
    files: &Files,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    if files.write.is_some() && input.lengths.is_none() {
        bail!("--write needs the sequences' lengths; a histogram does not say which is which");
    }
    for (file, beginning) in [
        (&files.write, output::PACKING),
        (&files.svg, chart::BEGINNING),
    ] {
        if let Some(file) = file {
            output::check(file, beginning)?;
        }
    }
    let chosen = packer.algorithm;
    let compared = |a: &Algorithm| {
        all && a.layout() == Layout::Packed
            && !(input.whole && a.cuts_sequences())
            && (*a != Algorithm::Nnlshp || packer.capacity <= NNLSHP_UNASKED)
    };
    let algorithms = Algorithm::ALL.into_iter();
    let algorithms: Vec<_> = algorithms.filter(|a| *a == chosen || compared(a)).collect();
    let bar = progress(algorithms.len());
    let mut outcomes = Vec::new();
    let mut left_out = Vec::new();
    for algorithm in algorithms {
        let packer = Packer {
            algorithm,
            ..packer.clone()
        };
        bar.set_message(format!("packing with {algorithm}"));
        // Only the chosen packing is used again; for ten million sequences it takes 120 MB.
        let stored = algorithm == chosen && files.write.is_some();
        match pack(input, &packer, stored) {
            Ok(outcome) => outcomes.push(outcome),
            // The algorithm was not chosen explicitly.
            Err(error) if algorithm != chosen => left_out.push(format!("{algorithm}: {error}")),
            Err(error) => {
                bar.finish_and_clear();
                return Err(input.locate(error, algorithm));
            }
        }
        bar.inc(1);
    }
    let first = outcomes.iter().find(|o| o.row.algorithm == chosen);
    let first = first.context("no algorithm")?;
    if first.row.packs == 0 {
        bar.finish_and_clear();
        bail!("nothing is left to pack: {}", describe(input, first));
    }
    if let (Some(file), Some(packing)) = (&files.write, &first.packing) {
        bar.set_message(format!("writing {}", file.display()));
        output::write_atomically(file, |out| Ok(serde_json::to_writer(out, packing)?))?;
    }
    if let Some(file) = &files.svg {
        let title = format!("{chosen} at {}", packer.capacity);
        let picture = bins::picture(&title, &input.histogram, first.fill.as_ref())?;
        output::write_atomically(file, |out| Ok(out.write_all(picture.as_bytes())?))?;
    }
    bar.finish_and_clear();
    if terminal.json() {
        for reason in left_out {
            Bars::default().notice(&format!("left out: {reason}"));
        }
        let rows: Vec<&Row> = outcomes.iter().map(|outcome| &outcome.row).collect();
        return terminal.json_line(&rows);
    }
    terminal.line(describe(input, first))?;
    terminal.line("\nSequences by length")?;
    terminal.line(bars(&bins::lengths(&input.histogram)))?;
    if let Some(fill) = &first.fill {
        terminal.line(format!("Packs of {chosen} by how full they are"))?;
        terminal.line(bars(&fill.bins()))?;
    }
    terminal.line(comparison(&outcomes, packer, input)?)?;
    for reason in left_out {
        terminal.line(format!("Left out: {reason}."))?;
    }
    if all && packer.capacity > NNLSHP_UNASKED && chosen != Algorithm::Nnlshp {
        terminal.line("nnlshp is slow at this capacity: --algorithm nnlshp --depth 2 runs it.")?;
    }
    if let Some(file) = &files.svg {
        terminal.line(format!(
            "wrote {}: lengths, and how full packs are",
            file.display()
        ))?;
    }
    if let Some(file) = &files.write {
        let file = file.display();
        terminal.line(format!(
            "wrote {file}: {} of {chosen}; train with --set packing.file={file}",
            counted(first.row.packs, "pack"),
        ))?;
    }
    Ok(())
}

/// Shows the number of finished algorithms, if there are several and they take time.
fn progress(algorithms: usize) -> ProgressBar {
    let bar = ProgressBar::new(algorithms as u64).with_style(style(match algorithms {
        _ if columns() < WIDE => "{spinner} {elapsed}  {msg}",
        1 => "{spinner} {msg} {elapsed}",
        _ => "{spinner} {bar:30.green/dim} {pos} of {len}, {msg} {elapsed}",
    }));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Packs the sequences, or their histogram if nothing else is known. Sequences that would be cut in
/// too many places are only counted, unless the packs are to be `stored`.
fn pack(input: &Input, packer: &Packer, stored: bool) -> Result<Outcome, PackError> {
    let row = |packs, efficiency, lower_bound, seconds| Row {
        algorithm: packer.algorithm,
        depth: packer.effective_depth(),
        packs,
        efficiency,
        lower_bound,
        seconds,
    };
    let start = Instant::now();
    let seconds = || start.elapsed().as_secs_f64();
    let packing = match &input.lengths {
        Some(lengths) => match packer.pack(lengths) {
            Err(PackError::TooManyCuts { .. }) if !stored => None,
            packing => Some(packing?),
        },
        None => None,
    };
    Ok(match packing {
        Some(packing) => {
            let seconds = seconds();
            let (packs, bound) = (packing.len() as u64, packing.lower_bound());
            let tokens = packing.iter().map(|pack| {
                let tokens = pack.iter().map(|piece| u64::from(piece.length)).sum();
                (tokens, 1)
            });
            Outcome {
                row: row(packs, packing.efficiency(), bound, seconds),
                cuts: packing.cuts().counts(packer.capacity),
                computed_tokens: packing.computed_tokens(),
                fill: Some(Fill::new(packer.capacity, tokens)),
                packing: stored.then_some(packing),
            }
        }
        None => {
            let packing = packer.pack_histogram(&input.histogram)?;
            let seconds = seconds();
            let fill = packing.strategies.as_ref().map(|strategies| {
                let tokens = strategies.iter().map(|(count, runs)| {
                    let tokens = runs.iter().map(|run| u64::from(run.length) * run.repeat);
                    (tokens.sum(), count)
                });
                Fill::new(packer.capacity, tokens)
            });
            Outcome {
                row: row(
                    packing.packs,
                    packing.efficiency(),
                    packing.lower_bound,
                    seconds,
                ),
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
        "{}: {}, {}, longest {}",
        input.name.display(),
        counted(histogram.sequences(), "sequence"),
        counted(histogram.tokens(), "token"),
        grouped(histogram.max_length().into()),
    );
    let cuts = &first.cuts;
    for (count, what) in [
        (cuts.empty, "empty, dropped"),
        (cuts.dropped, "over-long, dropped"),
        (cuts.truncated, "truncated"),
        (cuts.split, "split"),
    ] {
        if count > 0 {
            text += &format!("; {} {what}", grouped(count));
        }
    }
    if cuts.lost_tokens > 0 {
        text += &format!("; {} lost", counted(cuts.lost_tokens, "token"));
    }
    text.extend(input.shared.iter().flat_map(|shared| ["\n", shared]));
    text
}

fn comparison(outcomes: &[Outcome], packer: &Packer, input: &Input) -> anyhow::Result<String> {
    let (fitting, _) = input.histogram.fit(packer.capacity, packer.overlong)?;
    let (padded, order) = match &input.lengths {
        Some(lengths) if packer.overlong == Overlong::Truncate => {
            let longest = u32::try_from(packer.capacity).unwrap_or(u32::MAX);
            let fitting = lengths.iter().filter(|&&length| length > 0);
            let fitting = fitting.map(|&l| l.min(longest));
            (Padding::in_order(fitting, packer.batch_size), "this")
        }
        _ => (Padding::expected(&fitting, packer.batch_size), "random"),
    };
    let bucketed = Padding::bucketed(&fitting, packer.batch_size);

    let mut table = Table::new(&[
        "algorithm",
        ">packs",
        ">full",
        ">lower\nbound",
        ">above\nbound",
        ">seconds",
        ">over\npadded",
        ">over\nbucketed",
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
        table.row([
            match row.depth {
                Some(depth) => format!("{} {depth}", row.algorithm),
                None => row.algorithm.to_string(),
            },
            grouped(row.packs),
            format!("{:.3} %", 100.0 * row.efficiency),
            grouped(row.lower_bound),
            match row.packs.saturating_sub(row.lower_bound) {
                0 => "optimal".into(),
                above => format!("+{}", grouped(above)),
            },
            format!("{:.4}", row.seconds),
            over(&padded),
            over(&bucketed),
        ]);
    }
    Ok(format!(
        "{table}\n\nBatches of {}: {:.1} % padding in {order} order, {:.2} % when bucketed by length.\n\
         Without any padding: {:.2}x and {:.2}x (predicted).",
        grouped(packer.batch_size.into()),
        100.0 * padded.share(),
        100.0 * bucketed.share(),
        padded.speed_up(),
        bucketed.speed_up(),
    ))
}
