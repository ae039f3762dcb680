//! `tightrope inspect`: shows sequences and packs as the model will see them.

use crate::{exit::Exit, painting, progress::Bars, subject::ModelAndData, terminal::Terminal};
use anyhow::{Result, ensure};
use console::style;
use serde::Serialize;
use tightrope_data::{DataError, Dataset, ExampleKind, Examples, InspectedToken, Preflight};
use tightrope_report::{
    numbers::{counted, grouped, percent_of},
    table::Table,
};
use tightrope_run::Base;
use tightrope_train::Prepared;

const EXAMPLES: &str = "\
Examples:
  tightrope inspect my.toml            the first sequences and the first pack
  tightrope inspect my.toml --first 100 --sequences 1
  tightrope inspect my.toml --tokens   one line for each token, with its id
  tightrope inspect my.toml --set data.train_on=assistant
  tightrope inspect --model M --data chats.jsonl --tokens

What to look for: is the answer trained, and only the answer? Does it end in
the end token? Is the prompt rendered as the model knows it, with one BOS at
most?

Next:
  tightrope train my.toml";

/// Show some sequences and packs as the model will see them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: ModelAndData,

    /// Number of sequences to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    sequences: usize,

    /// The first sequence to show, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    first: u64,

    /// Number of packs to show
    #[arg(long, value_name = "N", default_value_t = 1)]
    packs: usize,

    /// Show one line for each token, with its id
    #[arg(long)]
    tokens: bool,
}

/// Everything that is shown, for programs.
#[derive(Serialize)]
struct Inspection<'a> {
    preflight: &'a Preflight,
    sequences: Vec<InspectedSequence>,
    packs: Vec<InspectedPack>,
}

#[derive(Serialize)]
struct InspectedSequence {
    /// Number of the sequence, from 1.
    sequence: usize,
    /// Number of its pair, from 1, and its place in it, if the data has pairs.
    pair: Option<usize>,
    answer: Option<&'static str>,
    file: Option<String>,
    row: Option<u64>,
    line: Option<u64>,
    tokens: Vec<InspectedToken>,
}

#[derive(Serialize)]
struct InspectedPack {
    /// Number of the pack, from 1.
    pack: usize,
    tokens: usize,
    padding_tokens: usize,
    trained_tokens: usize,
    segments: Vec<InspectedSegment>,
}

#[derive(Serialize)]
struct InspectedSegment {
    /// Number of the sequence, from 1; `None` for padding and for a shared beginning.
    sequence: Option<usize>,
    /// Numbers of the sequences that begin with the segment, if several do.
    shared_by: Vec<usize>,
    start: usize,
    length: usize,
    first_position: u32,
    last_position: u32,
    trained_tokens: usize,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve()?;
    let bars = Bars::default();
    let base = Base::of(&config, &bars)?;
    let (data, _) = base.load_both(&config, &bars)?;
    let prepared = Prepared::new(&config, &data, None, base.padding_token())?;

    let first = usize::try_from(args.first).unwrap_or(usize::MAX) - 1;
    let count = data.sequences.len();
    ensure!(
        first < count.max(1),
        "--first {}: the data has {} only",
        args.first,
        counted(count as u64, "sequence")
    );
    let shown = (first..count).take(args.sequences);
    let sequences = shown
        .map(|index| {
            let sequence = data.sequences.get(index)?;
            let tokens = tightrope_data::inspect(&sequence, base.tokenizer.as_ref())?;
            Ok(inspected(&data, index, tokens)?)
        })
        .collect::<Result<Vec<_>>>()?;
    let packs = packs(&prepared, &data, args.packs, base.padding_token())?;
    if terminal.json() {
        terminal.json_line(&Inspection {
            preflight: &data.report,
            sequences,
            packs,
        })?;
        return Ok(Exit::Success);
    }
    terminal.line(crate::report::preflight(&data.report))?;
    terminal.line(format!("\n{}", painting::legend(console::colors_enabled())))?;
    for sequence in &sequences {
        terminal.line(format!("\n{}", heading(sequence)))?;
        terminal.line(match args.tokens {
            true => listed(sequence),
            false => painting::paint(&sequence.tokens, console::colors_enabled()),
        })?;
    }
    for pack in &packs {
        terminal.line(format!(
            "\n{}",
            pack_table(pack, data.kind == ExampleKind::Pairs)
        ))?;
    }
    Ok(Exit::Success)
}

/// The sequences of a pair.
const ANSWERS: [&str; 2] = ["chosen", "rejected"];

fn inspected(
    data: &Dataset,
    index: usize,
    tokens: Vec<InspectedToken>,
) -> Result<InspectedSequence, DataError> {
    let origin = data.sequences.origin(index)?;
    let file = data.report.files.get(origin.file as usize);
    Ok(InspectedSequence {
        sequence: index + 1,
        pair: (data.kind == ExampleKind::Pairs).then_some(index / 2 + 1),
        answer: match data.kind {
            ExampleKind::Sequences => None,
            ExampleKind::Pairs => Some(ANSWERS[index % 2]),
            ExampleKind::Labelled => Some(if data.desirable[index] { "good" } else { "bad" }),
        },
        file: file.map(|file| file.path.clone()),
        row: Some(origin.row),
        line: origin.line,
        tokens,
    })
}

fn packs(
    prepared: &Prepared<'_>,
    data: &Dataset,
    count: usize,
    padding_token: u32,
) -> Result<Vec<InspectedPack>> {
    let packing = prepared.batches().packing();
    let pack = |index: usize| {
        let examples = Examples::from(data);
        let batch = packing.batch(index, &examples, padding_token)?;
        let segments = batch.segments().as_slice().iter().map(|segment| {
            let targets = &batch.targets()[segment.start..segment.start + segment.length];
            InspectedSegment {
                sequence: segment
                    .sequence
                    .and_then(|example| examples.sequence_of(example, segment.part))
                    .map(|sequence| sequence + 1),
                shared_by: match (segment.sequence, segment.part) {
                    (Some(example), part) if examples.sequence_of(example, part).is_none() => {
                        examples.members(example).map(|index| index + 1).collect()
                    }
                    _ => Vec::new(),
                },
                start: segment.start,
                length: segment.length,
                first_position: segment.first_position,
                last_position: segment.first_position + segment.length as u32 - 1,
                // A target is a token id; an ignored one is negative.
                trained_tokens: targets.iter().filter(|&&target| target >= 0).count(),
            }
        });
        Ok(InspectedPack {
            pack: index + 1,
            tokens: batch.real_tokens(),
            padding_tokens: batch.tokens().len() - batch.real_tokens(),
            trained_tokens: batch.trained_tokens(),
            segments: segments.collect(),
        })
    };
    (0..packing.len().min(count)).map(pack).collect()
}

/// `file line 3 · 57 tokens, 21 trained`.
fn heading(sequence: &InspectedSequence) -> String {
    let trained = sequence.tokens.iter().filter(|token| token.trained).count();
    let place = match (&sequence.file, sequence.line, sequence.row) {
        (Some(file), Some(line), _) => format!(" · {file} line {line}"),
        (Some(file), None, Some(row)) => format!(" · {file} row {row}"),
        _ => String::new(),
    };
    let tokens = sequence.tokens.len();
    let share = percent_of(trained as u64, tokens as u64);
    let pair = match (sequence.pair, sequence.answer) {
        (Some(pair), Some(answer)) => format!(" ({answer} of pair {pair})"),
        (None, Some(answer)) => format!(" ({answer})"),
        _ => String::new(),
    };
    style(format!(
        "sequence {}{pair}{place} · {}, {trained} trained ({share})",
        sequence.sequence,
        counted(tokens as u64, "token")
    ))
    .bold()
    .to_string()
}

/// Lists the tokens, one per line.
fn listed(sequence: &InspectedSequence) -> String {
    let mut table = Table::new(&[">position", ">id", "trained", "text"]);
    for (position, token) in sequence.tokens.iter().enumerate() {
        let trained = if token.trained { "yes" } else { "" };
        table.row([
            position.to_string(),
            token.id.to_string(),
            trained.to_owned(),
            format!("{:?}", token.text),
        ]);
    }
    table.to_string()
}

fn pack_table(pack: &InspectedPack, pairs: bool) -> String {
    let named = |sequence: usize| match pairs {
        true => {
            let index = sequence - 1;
            format!("{} of pair {}", ANSWERS[index % 2], index / 2 + 1)
        }
        false => format!("sequence {sequence}"),
    };
    let mut table = Table::new(&["segment", ">start", ">tokens", "positions", ">trained"]);
    for segment in &pack.segments {
        table.row([
            match (segment.sequence, &segment.shared_by[..]) {
                (Some(sequence), _) => named(sequence),
                (None, []) => "padding".to_owned(),
                (None, [first, .., last]) if last - first + 1 == segment.shared_by.len() => {
                    format!("beginning of {first} to {last}")
                }
                (None, shared_by) => format!(
                    "beginning of {}",
                    counted(shared_by.len() as u64, "sequence")
                ),
            },
            grouped(segment.start as u64),
            grouped(segment.length as u64),
            format!("{}–{}", segment.first_position, segment.last_position),
            grouped(segment.trained_tokens as u64),
        ]);
    }
    let heading = format!(
        "pack {} · {}, {} trained, {} padding",
        pack.pack,
        counted(pack.tokens as u64, "token"),
        grouped(pack.trained_tokens as u64),
        grouped(pack.padding_tokens as u64),
    );
    format!("{}\n{table}", style(heading).bold())
}
