//! The model families: one file each, and one line in [`FAMILIES`].

mod exaone4;
mod gemma;
mod gemma2;
mod gemma3;
pub(crate) mod gguf;
mod granite;
mod hyperclovax;
mod keys;
mod llama;
mod mistral;
mod olmo2;
mod olmo3;
mod qwen2;
mod qwen3;
mod seed_oss;
mod smollm3;

use crate::{Architecture, ConfigError, settings::Settings};
use gguf::{Gguf, GgufFiles};

/// Reads the configurations of a family.
#[derive(Debug)]
pub(crate) struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `architectures` in `config.json`.
    pub class: &'static str,
    /// `architectures` of a model that scores sequences, if Transformers has such a class.
    pub classifier: Option<&'static str>,
    /// Reads the settings, with the defaults of Transformers.
    pub describe: fn(&Settings<'_>) -> Result<Architecture, ConfigError>,
    /// Its GGUF files.
    pub gguf: Gguf,
}

static FAMILIES: [&Family; 14] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &smollm3::FAMILY,
    &granite::FAMILY,
    &gemma3::FAMILY,
    &olmo2::FAMILY,
    &olmo3::FAMILY,
    &exaone4::FAMILY,
    &seed_oss::FAMILY,
    &hyperclovax::FAMILY,
];

/// Finds the family of a `model_type`.
pub(crate) fn find(model_type: &str) -> Result<&'static Family, ConfigError> {
    let found = FAMILIES.iter().find(|f| f.model_type == model_type);
    found.copied().ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
        let reason = format!("`{model_type}` is not supported: {} are", known.join(", "));
        ConfigError::new("model_type", reason)
    })
}

/// The families of GGUF files.
fn of_gguf() -> impl Iterator<Item = (&'static Family, &'static GgufFiles)> {
    FAMILIES.iter().filter_map(|family| match &family.gguf {
        Gguf::Own(files) => Some((*family, files)),
        Gguf::Of(_) | Gguf::None => None,
    })
}

/// Finds the family of a `general.architecture`; the error lists the known ones.
pub(crate) fn find_gguf(
    architecture: &str,
) -> Result<(&'static Family, &'static GgufFiles), String> {
    let found = of_gguf().find(|(_, files)| files.architecture == architecture);
    found.ok_or_else(|| {
        let known: Vec<_> = of_gguf().map(|(_, files)| files.architecture).collect();
        format!(
            "`{architecture}` is not supported: {} are",
            known.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_table_of_families() {
        let rows = FAMILIES.iter().map(|family| {
            let mark = |has: bool| if has { "yes" } else { "no" };
            let read = match family.gguf {
                Gguf::Own(_) => "yes".to_owned(),
                Gguf::Of(other) => format!("as `{}`", other.model_type),
                Gguf::None => "no".to_owned(),
            };
            format!(
                "| `{}` | `{}` | {} | {read} | {} |\n",
                family.model_type,
                family.class,
                mark(family.classifier.is_some()),
                mark(family.gguf.files().is_some())
            )
        });
        let table: String = rows.collect();
        let document = include_str!("../../../../docs/models.md");
        assert!(
            document.contains(&table),
            "docs/models.md lacks these rows; put them in:\n{table}"
        );
    }
}
