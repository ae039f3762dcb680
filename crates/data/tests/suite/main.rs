//! Tests of the crate through its public interface, in one binary, because linking takes most of
//! the time.

mod added_tokens;
mod columns;
mod common;
mod damaged_tokenizers;
mod demo;
mod errors;
mod files;
mod formats;
mod labelled;
mod layouts;
mod limits;
mod masks;
mod messages;
mod new_tokens;
mod patterns;
mod preference;
mod renamed;
mod sentencepiece;
mod sets;
mod syntax;
mod template_limits;
mod templates;
mod tokenizers;
mod turns;
mod written;
