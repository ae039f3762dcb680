//! The targets: a file for each kind, and one line here.

mod checkpoint;
mod lengths;
mod models;
mod packings;
mod ptx;
mod records;
mod run;
mod shards;
mod template;
mod tokenizer;
mod tokens;

use crate::Target;

/// All targets.
pub static TARGETS: &[Target] = &[
    models::SAFETENSORS,
    shards::INDEX,
    models::CONFIG,
    models::ADAPTER,
    models::GGUF,
    tokenizer::TOKENIZER,
    template::TEMPLATE,
    records::JSON,
    records::CSV,
    records::PARQUET,
    run::RUN,
    checkpoint::CHECKPOINT,
    lengths::LENGTHS,
    lengths::HISTOGRAM,
    packings::PACKING,
    tokens::TOKENS,
    ptx::PTX,
];
