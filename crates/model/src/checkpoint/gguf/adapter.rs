//! Writes an adapter as a GGUF file, as llama.cpp's `convert_lora_to_gguf.py` does.

use super::{
    GgufSummary,
    names::{self, Conversion},
    write::{QUANTIZATION, encoded, refused},
};
use crate::{
    Backend, Model, ModelError,
    checkpoint::{EMBEDDING, HEAD},
    lora::AdapterConfig,
    parameter::{Parameter, ParameterKind},
    parts::{Adapter, host},
};
use std::path::Path;
use tightrope_device::{Device, Tensor};
use tightrope_formats::{
    Encoding, TensorOut,
    gguf::{self, FileType, Value},
};

/// The two factors of a module, under the name of its weight in Transformers.
struct Pair<'a, D: Device> {
    name: &'a str,
    a: &'a Parameter<Tensor<D>>,
    b: &'a Parameter<Tensor<D>>,
    /// `scale · rank`.
    alpha: f32,
}

impl<'a, D: Device> Pair<'a, D> {
    fn of(name: &'a str, adapter: &'a Adapter<Tensor<D>>) -> Self {
        Self {
            name,
            a: &adapter.a,
            b: &adapter.b,
            alpha: adapter.scale * adapter.rank as f32,
        }
    }
}

impl<D: Backend> Model<D> {
    /// Writes the adapter alone as a GGUF file, for llama.cpp's `--lora`; `more` is metadata about the
    /// file. Factors are of this type (f32, f16, bf16 or q8_0); rows that are not whole blocks are f16.
    ///
    /// # Errors
    /// If the adapter has more than factors, or scales that one alpha does not give: llama.cpp adds
    /// `alpha / rank · B·A` to weights and knows nothing else.
    pub fn save_gguf_adapter(
        &self,
        path: &Path,
        file_type: FileType,
        more: &[(String, Value)],
    ) -> Result<GgufSummary, ModelError> {
        let files = self.gguf_files()?;
        let threads = host(&self.device)?.threads();
        let architecture = self.config.architecture();
        self.check_adapter()?;
        let pairs = self.pairs();
        let Some(first) = pairs.first() else {
            return Err(ModelError::Unsupported("the model has no adapter to save"));
        };
        for pair in &pairs {
            if (pair.alpha - first.alpha).abs() > 1e-6 * first.alpha.abs() {
                let what = format!(
                    "scales of {} and {} times the inverse rank (`{}` and `{}`)",
                    first.alpha, pair.alpha, first.name, pair.name
                );
                return Err(refused(what, "an adapter has one alpha there"));
            }
        }
        let alpha = first.alpha;
        let own = match file_type {
            FileType::F32 => Encoding::F32,
            FileType::F16 => Encoding::F16,
            FileType::Bf16 => Encoding::Bf16,
            FileType::Q8_0 => Encoding::Q8_0,
            other => {
                let what = format!("an adapter in {}", other.name());
                return Err(refused(what, "llama.cpp takes f32, f16, bf16 and q8_0"));
            }
        };
        let conversion = Conversion {
            files,
            norm_places: architecture.norm_places,
        };
        let head_dim = architecture.head_dim;
        let mut summary = GgufSummary::default();
        let mut tensors = Vec::new();
        for Pair { name, a, b, .. } in pairs {
            let in_file = conversion.in_file(name);
            let in_file =
                in_file.ok_or_else(|| refused(format!("`{name}`"), "it has no name there"))?;
            for (end, factor) in [("lora_a", a), ("lora_b", b)] {
                let columns = factor.shape.last().copied().unwrap_or(1);
                let encoding = match columns.is_multiple_of(own.block_elements()) {
                    true => own,
                    false => Encoding::F16,
                };
                *summary.tensors.entry(encoding.name()).or_default() += 1;
                // Rows of the second factor are those of the weight.
                let permuted = end == "lora_b" && conversion.permutes(name);
                let bytes = move || {
                    let mut elements = factor.value.to_f32_vec()?;
                    if permuted {
                        elements = names::permute(&elements, factor.shape[0], head_dim);
                    }
                    encoded(&factor.name, encoding, &elements, threads)
                };
                let name = format!("{in_file}.{end}");
                tensors.push(TensorOut::new(name, encoding, &factor.shape, bytes));
            }
        }
        let text = |text: &str| Value::Text(text.to_owned());
        let mut metadata = vec![
            ("general.architecture", text(files.architecture)),
            ("general.type", text("adapter")),
            ("general.file_type", Value::U32(file_type.id())),
            ("general.quantization_version", Value::U32(QUANTIZATION)),
            ("adapter.type", text("lora")),
            ("adapter.lora.alpha", Value::F32(alpha)),
        ];
        metadata.extend(
            more.iter()
                .map(|(key, value)| (key.as_str(), value.clone())),
        );
        gguf::write(path, &metadata, tensors)?;
        Ok(summary)
    }

    /// Refuses an adapter with more than factors.
    fn check_adapter(&self) -> Result<(), ModelError> {
        let unknown =
            |what: String| Err(refused(what, "llama.cpp adds products of two factors only"));
        for parameter in self.weights.adapter() {
            let name = &parameter.name;
            match parameter.kind {
                ParameterKind::LoraA | ParameterKind::LoraB | ParameterKind::EmbeddingFactor => {}
                ParameterKind::Magnitude => {
                    return unknown(format!("magnitudes of DoRA (`{name}`)"));
                }
                ParameterKind::Bias => return unknown(format!("a trained bias (`{name}`)")),
                _ => return unknown(format!("what is trained whole (`{name}`)")),
            }
        }
        // The base of llama.cpp is another one than the weights that such an adapter belongs to.
        if self.adapter.as_ref().is_some_and(AdapterConfig::needs_nf4) {
            let what = "an adapter that makes up for what NF4 loses (`loftq_config`)";
            return Err(refused(
                what,
                "llama.cpp has no weights in NF4; merge the adapter instead",
            ));
        }
        if let Some((table, _)) = self.adapter.iter().flat_map(|own| own.tables()).next() {
            return unknown(format!("a table of the adapter's own (`{table}`)"));
        }
        let tied = self.weights.head.is_tied();
        if tied && (self.weights.embedding_adapter.is_some() || self.weights.head.adapter.is_some())
        {
            let what = "factors of an embedding that is also the head";
            return Err(refused(
                what,
                "llama.cpp has one tensor for both; merge the adapter instead",
            ));
        }
        Ok(())
    }

    /// The factors of each module that has them.
    fn pairs(&self) -> Vec<Pair<'_, D>> {
        let linears = self.weights.linears();
        let linears = linears
            .filter_map(|linear| Some(Pair::of(linear.weight.name(), linear.adapter.as_ref()?)));
        let embedding = self.weights.embedding_adapter.iter().map(|adapter| Pair {
            name: EMBEDDING,
            a: &adapter.a,
            b: &adapter.b,
            alpha: adapter.scale * adapter.rank as f32,
        });
        let head = self
            .weights
            .head
            .adapter
            .iter()
            .map(|adapter| Pair::of(HEAD, adapter));
        linears.chain(embedding).chain(head).collect()
    }
}
