//! Loads files into a data set: rows come in bounded chunks and are parsed, rendered and tokenized
//! on all cores.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use tightrope_packing::{Overlong, Sequence};

use crate::columns::{Columns, Renamed};
use crate::dataset::{Dataset, Origin};
use crate::detect::{DETECTION_ROWS, detect};
use crate::encode::{AddedEnd, Encoded, Encoder};
use crate::error::{BadRow, DataError};
use crate::examples::ExampleKind;
use crate::options::{DataOptions, Format, OnBadRow, TrainOn};
use crate::preflight::FileReport;
use crate::progress::Progress;
use crate::record::{self, Parsed, TemplateReads};
use crate::sets::{FileSet, SetReport};
use crate::source::{Limits, RawRow, Source, foreign};
use crate::store::SequenceWriter;
use crate::template::{ChatTemplate, ChatTemplates, limits};
use crate::tokenizer::Tokenizer;

/// Reads files of records.
///
/// JSON (an array, or an object that holds one), JSON lines, CSV (each plain, gzip or zstd) and
/// Parquet, distinguished by their bytes. Order and result do not depend on the number of threads.
/// A `tokenizer` is needed for everything but `tokens`; with one, token ids are checked against its
/// vocabulary. A data set without any target is an error.
pub fn load(
    paths: &[PathBuf],
    options: &DataOptions,
    tokenizer: Option<&Tokenizer>,
    progress: &dyn Progress,
) -> Result<Dataset, DataError> {
    load_for(paths, options, tokenizer, None, progress)
}

/// The same for a model whose embedding has this number of rows: a token or label beyond them is an
/// error of its row.
pub fn load_for(
    paths: &[PathBuf],
    options: &DataOptions,
    tokenizer: Option<&Tokenizer>,
    embedding: Option<usize>,
    progress: &dyn Progress,
) -> Result<Dataset, DataError> {
    let set = FileSet {
        paths: paths.to_vec(),
        options: options.clone(),
        ..FileSet::default()
    };
    load_sets(&[set], tokenizer, embedding, progress)
}

/// Reads several sets of files into memory, each with its options, one after the other. How often
/// records are taken is up to [`Dataset::mixed`].
pub fn load_sets(
    sets: &[FileSet],
    tokenizer: Option<&Tokenizer>,
    embedding: Option<usize>,
    progress: &dyn Progress,
) -> Result<Dataset, DataError> {
    let memory = SequenceWriter::default();
    load_into(memory, sets, tokenizer, embedding, progress)
}

/// The same, with the sequences wherever `writer` writes them: from a file, data may be larger than
/// memory.
pub fn load_into(
    mut writer: SequenceWriter,
    sets: &[FileSet],
    tokenizer: Option<&Tokenizer>,
    embedding: Option<usize>,
    progress: &dyn Progress,
) -> Result<Dataset, DataError> {
    if sets.is_empty() || sets.iter().any(|set| set.paths.is_empty()) {
        return Err(DataError::NoFiles);
    }
    if sets.iter().any(|set| set.options.max_length == 0) {
        return Err(DataError::Option {
            key: "max_length",
            message: "must be at least 1".to_owned(),
        });
    }
    let mut total = 0;
    for path in sets.iter().flat_map(|set| &set.paths) {
        let metadata = std::fs::metadata(path);
        total += metadata.map_err(|e| foreign::absent(path, e))?.len();
    }
    let own = |set: &FileSet| {
        let template = set.options.chat_template.as_deref();
        let template = template.map(ChatTemplate::from_option).transpose()?;
        Ok(template.map(ChatTemplates::from))
    };
    let own = sets
        .iter()
        .map(own)
        .collect::<Result<Vec<_>, DataError>>()?;
    let mut dataset = Dataset::default();
    let mut seen = HashSet::new();
    let mut reads_clock = false;
    progress.start("reading data", Some(total));
    let mut read = || {
        for (index, (set, own)) in sets.iter().zip(&own).enumerate() {
            let templates = own.as_ref().or_else(|| tokenizer?.chat_templates());
            let options = &set.options;
            let mut loader = Loader {
                set: index,
                options,
                encoder: Encoder {
                    tokenizer,
                    templates,
                    reads: templates.map(|all| TemplateReads::of(all.choose(true))),
                    embedding,
                    train_on: options.train_on,
                    added_end: AddedEnd::new(options.add_end_token, tokenizer, templates),
                    end_texts: tokenizer.map(Tokenizer::end_texts).unwrap_or_default(),
                },
                dataset: &mut dataset,
                writer: &mut writer,
                seen: &mut seen,
                uses_template: false,
            };
            for path in &set.paths {
                loader.file(path, progress)?;
            }
            let clock = || templates.is_some_and(ChatTemplates::read_clock);
            reads_clock |= loader.uses_template && clock();
        }
        Ok::<_, DataError>(())
    };
    // Templates may need more stack than the threads of other pools have.
    let result = match limits::deep_pool() {
        Ok(pool) => pool.install(read),
        Err(_) => read(),
    };
    progress.finish();
    result?;
    drop(seen);
    dataset.sequences = writer.finish()?;
    let report = &mut dataset.report;
    report.train_on = sets[0].options.train_on;
    report.trains_differently = sets
        .iter()
        .any(|set| set.options.train_on != report.train_on);
    report.no_eos = tokenizer.is_some_and(|t| t.eos_id().is_none());
    report.template_reads_clock = reads_clock;
    report.sets = SetReport::of_all(sets);
    report.count(&dataset.sequences);
    match dataset.kind {
        ExampleKind::Sequences => {}
        ExampleKind::Pairs => report.pairs = Some(dataset.sequences.len() as u64 / 2),
        ExampleKind::Labelled => {
            let good = dataset.desirable.iter().filter(|good| **good).count() as u64;
            report.good_answers = Some(good);
        }
    }
    if dataset.report.trained_tokens == 0 {
        return Err(DataError::NothingToTrain {
            report: Box::new(dataset.report),
        });
    }
    Ok(dataset)
}

/// Reads the files of a set.
struct Loader<'a> {
    set: usize,
    options: &'a DataOptions,
    encoder: Encoder<'a>,
    dataset: &'a mut Dataset,
    writer: &'a mut SequenceWriter,
    /// Hashes of the rows so far.
    seen: &'a mut HashSet<u64>,
    uses_template: bool,
}

/// Result of a row.
struct Outcome {
    sequences: Vec<Encoded>,
    /// Whether a labelled answer is good.
    desirable: Option<bool>,
    unused: Vec<String>,
    hash: u64,
    /// Columns of the options that the row has.
    found: u64,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path, progress: &dyn Progress) -> Result<(), DataError> {
        let index = self.dataset.report.files.len();
        let limits = Limits {
            row_bytes: self.options.max_row_bytes,
        };
        let mut source = Source::open(path, limits, &self.options.columns)?;
        let mut chunk = source.next_chunk()?;
        if chunk.is_empty() {
            return Err(DataError::NoRows {
                path: path.to_owned(),
            });
        }
        let columns = &self.options.columns;
        let (mut found, saw) = columns.look(&chunk[..chunk.len().min(DETECTION_ROWS)], path);
        let format = match self.options.format {
            Format::Auto => detect(path, &chunk, self.options)
                .map_err(|error| columns.absent(found, path, &saw).unwrap_or(error))?,
            format => format,
        };
        self.check(index, path, format, &chunk)?;
        let (mut rows, mut done) = (0, 0);
        while !chunk.is_empty() {
            let encoder = &self.encoder;
            // The next rows are read while these are processed.
            let (next, outcomes) = rayon::join(
                || source.next_chunk(),
                || {
                    let outcomes = chunk
                        .par_iter_mut()
                        .map(|row| process(row, path, format, columns, encoder));
                    outcomes.collect::<Vec<_>>()
                },
            );
            for (row, outcome) in chunk.iter().zip(outcomes) {
                found |= outcome.as_ref().map_or(0, |outcome| outcome.found);
                self.take(index, path, row, outcome)?;
            }
            rows += chunk.len() as u64;
            let consumed = source.consumed();
            progress.advance(consumed.saturating_sub(done));
            done = done.max(consumed);
            chunk = next?;
        }
        if let Some(error) = columns.absent(found, path, &saw) {
            return Err(error);
        }
        self.dataset.report.rows += rows;
        self.dataset.report.files.push(FileReport {
            path: path.display().to_string(),
            format,
            rows,
            set: self.set,
        });
        Ok(())
    }

    fn check(
        &mut self,
        index: usize,
        path: &Path,
        format: Format,
        chunk: &[RawRow],
    ) -> Result<(), DataError> {
        let (kind, before) = (ExampleKind::of(format), self.dataset.kind);
        if index > 0 && kind != before {
            return Err(DataError::MixedKinds {
                path: path.to_owned(),
                kind,
                before,
            });
        }
        self.dataset.kind = kind;
        let judged = kind != ExampleKind::Sequences;
        let option = |key, message: &str| {
            Err(DataError::Option {
                key,
                message: message.to_owned(),
            })
        };
        if judged && self.options.train_on != TrainOn::Completion {
            return option(
                "train_on",
                "must be \"completion\" for answers that are compared or labelled",
            );
        }
        if judged && self.options.overlong == Overlong::Split {
            return option(
                "overlong",
                "answers that are compared or labelled cannot be split; use truncate, drop or error",
            );
        }
        let has_ids = || {
            let first = chunk.iter().find_map(|row| row.parse(path).ok());
            let columns = &self.options.columns;
            first.is_some_and(|row| record::has_ids(&columns.apply(row.into_owned()).fields))
        };
        if self.encoder.tokenizer.is_none() && format != Format::Tokens && !(judged && has_ids()) {
            return Err(DataError::NeedsTokenizer {
                path: path.to_owned(),
                format: format.name(),
                why: String::new(),
            });
        }
        if format == Format::Chat && self.encoder.templates.is_none() {
            return Err(DataError::NeedsTemplate {
                path: path.to_owned(),
            });
        }
        self.uses_template |= matches!(
            format,
            Format::Chat
                | Format::Alpaca
                | Format::Completion
                | Format::Preference
                | Format::Labelled
        );
        Ok(())
    }

    /// Adds the result of a row.
    fn take(
        &mut self,
        file: usize,
        path: &Path,
        row: &RawRow,
        outcome: Result<Outcome, Box<BadRow>>,
    ) -> Result<(), DataError> {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(bad) => {
                if self.options.on_bad_row == OnBadRow::Error {
                    return Err(bad.into());
                }
                self.dataset.report.skip(&bad);
                return Ok(());
            }
        };
        let report = &mut self.dataset.report;
        outcome
            .unused
            .into_iter()
            .for_each(|key| report.not_used(key));
        if outcome.sequences.iter().all(|s| s.tokens.is_empty()) {
            report.empty_rows += 1;
            return Ok(());
        }
        report.duplicate_rows += u64::from(!self.seen.insert(outcome.hash));
        let pair = self.dataset.kind == ExampleKind::Pairs;
        report.packed_rows += u64::from(!pair && outcome.sequences.len() > 1);
        let origin = Origin {
            file: file as u32,
            row: row.row,
            line: row.place(path, None).line,
        };
        let mut sequences = Vec::with_capacity(outcome.sequences.len());
        for encoded in outcome.sequences {
            self.cut(path, row, encoded, &mut sequences)?;
        }
        if pair && !self.keeps_pair(&sequences) {
            return Ok(());
        }
        let good = outcome.desirable;
        for sequence in &sequences {
            self.writer.push(sequence, origin, good == Some(true))?;
            self.dataset.desirable.extend(good);
        }
        Ok(())
    }

    /// Whether the answers of a pair differ, and each has a trained token; counts why not.
    fn keeps_pair(&mut self, pair: &[Sequence]) -> bool {
        let report = &mut self.dataset.report;
        let reason = match pair {
            [chosen, rejected] if chosen.trained_tokens().min(rejected.trained_tokens()) == 0 => {
                &mut report.untrained_pairs
            }
            [chosen, rejected] if chosen == rejected => &mut report.equal_pairs,
            [_, _] => return true,
            // One side was dropped because of its length, and counted.
            _ => &mut report.halved_pairs,
        };
        *reason += 1;
        false
    }

    /// Adds one sequence of a row, cut as the options say.
    fn cut(
        &mut self,
        path: &Path,
        row: &RawRow,
        encoded: Encoded,
        sequences: &mut Vec<Sequence>,
    ) -> Result<(), DataError> {
        let report = &mut self.dataset.report;
        report.doubled_bos += u64::from(encoded.doubled_bos);
        report.missing_eos += u64::from(encoded.missing_eos);
        report.added_eos += u64::from(encoded.added_eos);
        report.open_texts += u64::from(encoded.open_text);
        report.answers += encoded.chat.answers;
        report.trained_answers += encoded.chat.trained_answers;
        report.empty_answers += encoded.chat.empty_answers;
        report.dropped.add(&encoded.chat.dropped);
        report.joined_parts += u64::from(encoded.chat.joined_parts);
        let (tokens, labels) = (encoded.tokens, encoded.labels);
        let (length, limit) = (tokens.len(), self.options.max_length);
        report.longest = report.longest.max(length as u64);
        let mut pieces = limit;
        if length > limit {
            match self.options.overlong {
                Overlong::Error => {
                    return Err(DataError::Overlong {
                        place: row.place(path, None),
                        tokens: length,
                        max_length: limit,
                    });
                }
                Overlong::Drop => {
                    report.dropped_rows += 1;
                    report.dropped_tokens += length as u64;
                    return Ok(());
                }
                Overlong::Truncate => {
                    report.truncated_sequences += 1;
                    report.truncated_tokens += (length - limit) as u64;
                    pieces = length;
                }
                Overlong::Split => report.split_rows += 1,
            }
        }
        for (tokens, labels) in tokens.chunks(pieces).zip(labels.chunks(pieces)) {
            let sequence = Sequence::from_labels(tokens.to_vec(), labels);
            let mut sequence = sequence.map_err(|e| row.bad(path, e.into()))?;
            sequence.truncate(limit);
            sequences.push(sequence);
        }
        Ok(())
    }
}

fn process(
    row: &mut RawRow,
    path: &Path,
    format: Format,
    columns: &Columns,
    encoder: &Encoder<'_>,
) -> Result<Outcome, Box<BadRow>> {
    let Renamed {
        fields,
        found,
        displaced,
    } = columns.apply(row.take(path)?);
    let parsed = record::parse(fields, format, encoder.reads.as_ref());
    let encoded = parsed.and_then(|Parsed { record, unused }| {
        let desirable = record.desirable();
        Ok((encoder.encode(record)?, desirable, unused))
    });
    let (sequences, desirable, unused) =
        encoded.map_err(|problem| row.bad(path, columns.in_file(problem)))?;
    let mut hasher = DefaultHasher::new();
    desirable.hash(&mut hasher);
    for sequence in &sequences {
        sequence.tokens.hash(&mut hasher);
        sequence.labels.hash(&mut hasher);
    }
    let unused = unused.into_iter().map(|key| columns.name_in_file(key));
    Ok(Outcome {
        sequences,
        desirable,
        unused: unused.chain(displaced).collect(),
        hash: hasher.finish(),
        found,
    })
}
