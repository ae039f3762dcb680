//! Parses PTX text into a syntax tree: lexer, tree, parser.
pub mod ast;
mod declarations;
pub mod lexer;
mod parser;
pub mod types;

pub use parser::parse;
