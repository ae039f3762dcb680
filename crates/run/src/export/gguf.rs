//! GGUF, for llama.cpp and the programs around it.

use super::{Exported, Format, Job, ollama, place};
use crate::{
    RunError,
    source::{Origin, Source},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_data::DataError;
use tightrope_formats::{
    FormatError,
    files::Temporary,
    gguf::{FileType, Gguf, Value},
};
use tightrope_model::GgufSummary;
use tightrope_report::numbers::counted;
use tightrope_train::{Output, checkpoint::folder::Files};

pub(super) static FORMAT: Format = Format {
    name: "gguf",
    ending: "gguf",
    types: &[
        "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0",
    ],
    default_type: "f16",
    write,
};

/// Key that says which program has written a file.
const WRITER: &str = "tightrope.version";

/// Whether an export has written the file.
pub(super) fn is_ours(path: &Path) -> bool {
    let file = path.symlink_metadata().is_ok_and(|data| data.is_file());
    file && Gguf::open(path).is_ok_and(|gguf| gguf.metadata.get(WRITER).is_some())
}

fn write(job: &Job<'_>, target: &Path) -> Result<Exported, RunError> {
    let options = job.options;
    let Some(file_type) = FileType::from_name(&options.file_type) else {
        return Err(FORMAT.no_type(&options.file_type));
    };
    let mut more = general(job);
    if !options.adapter_only {
        more.extend(tokenizer(job)?);
    }
    // The file for Ollama comes first, since its text is known; both get their names at the end.
    let beside = place::modelfile(target);
    let from = target.file_name().unwrap_or_default().to_string_lossy();
    let text = match options.adapter_only {
        true => ollama::of_adapter(&base(job), &from),
        false => ollama::of_model(&from, job),
    };
    let (modelfile, mut file) = Temporary::file(&beside).map_err(FormatError::io(&beside))?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(FormatError::io(&beside))?;
    drop(file);
    let temporary = Temporary::file(target).map_err(FormatError::io(target))?.0;
    let path = temporary.path();
    let summary = match options.adapter_only {
        true => job.model.save_gguf_adapter(path, file_type, &more),
        false => job.model.save_gguf(path, file_type, &more),
    };
    let summary = summary?;
    say(job, &summary);
    // The check is repeated, because much time has passed.
    place::check(target, options.overwrite)?;
    for path in [target, &beside] {
        Output::note_written(path, Files::new())?;
    }
    let bytes = fs::metadata(path).map_err(FormatError::io(target))?.len();
    temporary.finish().map_err(FormatError::io(target))?;
    modelfile.finish().map_err(FormatError::io(&beside))?;
    Ok(Exported {
        file: target.to_owned(),
        bytes,
        modelfile: beside,
        tensors: summary.tensors,
    })
}

/// Metadata about the file: the name of the model, and the program.
fn general(job: &Job<'_>) -> Vec<(String, Value)> {
    let origin = Origin::new(&job.config.model, &job.base.source);
    let name = Path::new(&origin.name).file_stem();
    let name = name.map_or(origin.name.clone(), |name| {
        name.to_string_lossy().into_owned()
    });
    let version = env!("CARGO_PKG_VERSION");
    vec![
        ("general.name".to_owned(), Value::Text(name)),
        (WRITER.to_owned(), Value::Text(version.to_owned())),
    ]
}

fn tokenizer(job: &Job<'_>) -> Result<Vec<(String, Value)>, RunError> {
    let Some(tokenizer) = &job.base.tokenizer else {
        return Ok(Vec::new());
    };
    let rows = job.model.config().architecture().vocabulary;
    let written = tokenizer.to_gguf(rows, job.options.pre.as_deref());
    let mut written = written.map_err(|error| match error {
        DataError::Gguf { message } => DataError::TokenizerFile {
            path: job.base.source.path().to_owned(),
            message,
        },
        other => other,
    })?;
    written.bos_id = written.bos_id.or(job.model.config().bos_token_id());
    Ok(written.to_metadata())
}

/// The model that Ollama can take an adapter's model from.
fn base(job: &Job<'_>) -> PathBuf {
    match &job.base.source {
        Source::Gguf(path) | Source::Folder(path) => {
            fs::canonicalize(path).unwrap_or_else(|_| path.clone())
        }
    }
}

/// Says what a user would not expect of the file.
fn say(job: &Job<'_>, summary: &GgufSummary) {
    for note in &summary.notes {
        job.observer.notice(note);
    }
    let all = &summary.fallbacks;
    for (index, first) in all.iter().enumerate() {
        let same = |other: &&tightrope_model::Fallback| {
            (other.columns, other.wanted, other.used) == (first.columns, first.wanted, first.used)
        };
        if all[..index].iter().any(|other| same(&other)) {
            continue;
        }
        job.observer.notice(&format!(
            "{} {} and not {}, as in llama.cpp: rows of {} are not whole blocks of {}",
            match all.iter().filter(same).count() {
                1 => format!("{} is", first.tensor),
                count => format!("{} are", counted(count as u64, "tensor")),
            },
            first.used.name(),
            first.wanted.name(),
            first.columns,
            first.wanted.block_elements()
        ));
    }
}
