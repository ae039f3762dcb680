//! Measures how fast a tokenizer's folder turns a file of text into ids, on one thread, line by
//! line.
//!
//! `cargo run --release -p tightrope-data --example tokenize -- FOLDER FILE`

use std::{error::Error, path::Path, time::Instant};
use tightrope_data::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file] = &arguments[..] else {
        return Err("needs a folder with tokenizer.json and a file of text".into());
    };
    let tokenizer = Tokenizer::from_folder(Path::new(folder))?;
    let text = std::fs::read_to_string(file)?;
    let mut best = f64::INFINITY;
    let mut tokens = 0;
    for _ in 0..3 {
        let start = Instant::now();
        tokens = 0;
        for line in text.split_inclusive('\n') {
            tokens += tokenizer.encode(line, false)?.len();
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    let megabytes = text.len() as f64 / 1e6;
    println!(
        "{tokens} tokens, {megabytes:.1} MB, {:.2} MB/s",
        megabytes / best
    );
    Ok(())
}
