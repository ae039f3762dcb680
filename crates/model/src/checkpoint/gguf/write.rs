//! Writes a model as a GGUF file, as llama.cpp's converter and its quantiser do.

use super::{
    FREQUENCIES, configuration,
    names::{self, Conversion},
    unsaid::unsaid,
};
use crate::{
    Architecture, Backend, HeadKind, Model, ModelError,
    export::{Merged, fits},
    family::gguf::{GgufFiles, OwnHead, factors, keys},
    parts::host,
};
use std::{collections::BTreeMap, path::Path};
use tightrope_device::DType;
use tightrope_formats::{
    Encoding, TensorOut,
    gguf::{self, FileType, Gguf, Shape, Value},
};

/// Version of the blocks, `general.quantization_version`.
pub(super) const QUANTIZATION: u32 = 2;

/// What a written file holds.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GgufSummary {
    /// Number of tensors of each encoding.
    pub tensors: BTreeMap<&'static str, usize>,
    /// Tensors whose rows are not whole blocks of the encoding that their type asks for.
    pub fallbacks: Vec<Fallback>,
    /// What a user should know about the file in llama.cpp.
    pub notes: Vec<String>,
}

/// A tensor in another encoding than its type asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Name in the file.
    pub tensor: String,
    /// Number of elements of a row.
    pub columns: usize,
    /// Encoding that it would have.
    pub wanted: Encoding,
    /// Encoding that it has.
    pub used: Encoding,
}

impl<D: Backend> Model<D> {
    /// How GGUF files hold a model of this kind.
    pub(super) fn gguf_files(&self) -> Result<&'static GgufFiles, ModelError> {
        let family = self.config.model_type();
        if self.config.architecture().head == HeadKind::Score {
            let what = "a model that scores sequences";
            return Err(refused(what, "llama.cpp has other kinds of such models"));
        }
        let what = format!("a model of the family `{family}`");
        let files = self.config.gguf().files();
        files.ok_or_else(|| refused(what, "llama.cpp does not know the family"))
    }

    /// Writes the model with its adapter (if any) added as a GGUF file; `more` is metadata of the
    /// tokenizer and about the file. Nothing is written if a reader would compute otherwise. The
    /// weights are added in f64 and rounded or quantised once, on the host.
    pub fn save_gguf(
        &self,
        path: &Path,
        file_type: FileType,
        more: &[(String, Value)],
    ) -> Result<GgufSummary, ModelError> {
        let files = self.gguf_files()?;
        let host = host(&self.device)?;
        let mut architecture = self.config.architecture().clone();
        architecture.tied_head &= self.weights.untied_head().is_none();
        check_loads(files, &architecture)?;
        let conversion = Conversion {
            files,
            norm_places: architecture.norm_places,
        };
        let out = Out {
            conversion,
            file_type,
            head_dim: architecture.head_dim,
            shape: Shape {
                layers: architecture.layers(),
                tied_head: architecture.tied_head,
                seventy_billion: architecture.layers() == 80
                    && match files.architecture {
                        "llama" => architecture.kv_heads < architecture.heads,
                        other => other == "qwen2",
                    },
            },
            threads: host.threads(),
        };
        let factors = match files.loads.rope_factors {
            true => factors(&architecture.rope),
            false => None,
        };
        let mut summary = GgufSummary::default();
        let merged = self.merged_tensors(&host).into_iter();
        let mut tensors = merged
            .map(|tensor| out.tensor(tensor, &mut summary))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(factors) = &factors {
            let bytes = move || Ok(factors.iter().flat_map(|x| x.to_le_bytes()).collect());
            let shape = [factors.len()];
            tensors.push(TensorOut::new(FREQUENCIES, Encoding::F32, &shape, bytes));
        }
        for tensor in &tensors {
            *summary.tensors.entry(tensor.encoding.name()).or_default() += 1;
        }
        let metadata = metadata(files, &architecture, file_type, more);
        let metadata: Vec<_> = metadata
            .iter()
            .map(|(key, v)| (key.as_str(), v.clone()))
            .collect();
        let planned = Gguf::planned(path, &metadata, &tensors);
        let (read, _) = configuration(&planned, factors.clone())?;
        if let Some(what) = unsaid(&architecture, read.architecture()) {
            let family = files.architecture;
            let reason =
                format!("files of `{family}` do not say it, or llama.cpp computes otherwise");
            return Err(refused(what, reason));
        }
        if let (false, Some(window)) = (
            files.loads.windows,
            architecture.windows.iter().flatten().next(),
        ) {
            summary.notes.push(format!(
                "llama.cpp has no windows in models of `{}`: beyond {window} tokens it computes \
                 otherwise than the model was trained",
                files.architecture
            ));
        }
        gguf::write(path, &metadata, tensors)?;
        Ok(summary)
    }
}

pub(super) fn refused(what: impl Into<String>, reason: impl Into<String>) -> ModelError {
    ModelError::NotInGguf {
        what: what.into(),
        reason: reason.into(),
    }
}

/// Metadata of a whole model.
fn metadata(
    files: &GgufFiles,
    architecture: &Architecture,
    file_type: FileType,
    more: &[(String, Value)],
) -> Vec<(String, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut all = vec![
        ("general.architecture".to_owned(), text(files.architecture)),
        ("general.type".to_owned(), text("model")),
        ("general.file_type".to_owned(), Value::U32(file_type.id())),
        (
            "general.quantization_version".to_owned(),
            Value::U32(QUANTIZATION),
        ),
    ];
    all.extend(keys(files, architecture));
    all.extend(more.iter().cloned());
    all
}

/// Refuses tensors that llama.cpp does not load, and heads that it does not have.
fn check_loads(files: &GgufFiles, architecture: &Architecture) -> Result<(), ModelError> {
    let name = files.architecture;
    let absent = |what: &str| {
        let reason = format!("llama.cpp has none in models of `{name}`");
        Err(refused(what, reason))
    };
    let loads = files.loads;
    match (architecture.tied_head, loads.own_head) {
        (false, OwnHead::Never) => return absent("a head beside the embedding"),
        (true, OwnHead::Always) => {
            let reason = format!("llama.cpp wants a head of its own in models of `{name}`");
            return Err(refused("a head that is the embedding", reason));
        }
        _ => {}
    }
    if architecture.output_bias && !loads.output_bias {
        return absent("biases after attention");
    }
    if architecture.mlp_bias && !loads.mlp_bias {
        return absent("biases of the gated unit");
    }
    Ok(())
}

/// How the tensors of a model are written.
struct Out {
    conversion: Conversion,
    file_type: FileType,
    head_dim: usize,
    shape: Shape,
    threads: usize,
}

impl Out {
    /// The tensor under its name in the file, in its order of rows and its encoding.
    fn tensor<'a>(
        &self,
        tensor: Merged<'a>,
        summary: &mut GgufSummary,
    ) -> Result<TensorOut<'a, ModelError>, ModelError> {
        let Merged {
            name,
            shape,
            elements,
            ..
        } = tensor;
        let in_file = self.conversion.in_file(name);
        let in_file =
            in_file.ok_or_else(|| refused(format!("`{name}`"), "it has no name there"))?;
        let encoding = self.file_type.encoding(&in_file, shape, self.shape);
        let columns = shape.last().copied().unwrap_or(1);
        let wanted = self.file_type.wanted(&in_file, self.shape);
        if shape.len() > 1 && wanted != encoding {
            summary.fallbacks.push(Fallback {
                tensor: in_file.clone(),
                columns,
                wanted,
                used: encoding,
            });
        }
        let (conversion, head_dim, threads) = (self.conversion, self.head_dim, self.threads);
        let rows = shape[0];
        Ok(TensorOut::new(in_file, encoding, shape, move || {
            let mut elements = elements()?;
            if conversion.permutes(name) {
                elements = names::permute(&elements, rows, head_dim);
            }
            if conversion.takes_one_off(name) {
                elements.iter_mut().for_each(|w| *w += 1.0);
            }
            encoded(name, encoding, &elements, threads)
        }))
    }
}

/// Elements in an encoding; an error if one would be infinite in it, or the scale of its block.
pub(super) fn encoded(
    name: &str,
    encoding: Encoding,
    elements: &[f32],
    threads: usize,
) -> Result<Vec<u8>, ModelError> {
    let dtype = match encoding {
        Encoding::F32 => DType::F32,
        Encoding::Bf16 => DType::BF16,
        _ => DType::F16,
    };
    if !fits(dtype, elements) {
        let tensor = name.to_owned();
        return Err(ModelError::OutOfRange { tensor, dtype });
    }
    let bytes = encoding.encode(elements, threads);
    bytes.ok_or_else(|| {
        refused(
            format!("`{name}` in {encoding}"),
            "its rows are not whole blocks",
        )
    })
}
