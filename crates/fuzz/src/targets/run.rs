//! Configurations of runs.

use crate::Target;
use std::path::Path;
use tightrope_train::{
    Config,
    config::{KEYS, default_toml},
};

pub(super) const RUN: Target = Target {
    name: "run",
    run: |bytes| {
        let text = std::str::from_utf8(bytes)?;
        let config = Config::parse(text, Path::new("run.toml"), &[])?;
        config.entries();
        config.data_options();
        Ok(())
    },
    seeds: || {
        let mut seeds: Vec<Vec<u8>> = vec![
            default_toml().into(),
            include_str!("../../../../examples/smollm2-alpaca.toml").into(),
            "model = 'm'\n[data]\ncolumns = {prompt = 'q'}\n[[data.train]]\npath = ['a', 'hub:o/n@r']\n\
             weight = 2.5\nsplit = 'test'\n[[data.eval]]\npath = 'b'\nsamples = 3\n"
                .into(),
            "model = \"m\"\ndata.train = ['a', \"b\"]\n[lora]\nr = 0x8\nalpha = 1e1\n".into(),
        ];
        // Each key alone, so that every key is reached.
        seeds.extend(
            KEYS.iter()
                .map(|key| format!("model = 'm'\n# {}\n", key.path()).into()),
        );
        seeds
    },
    words: &[
        "[lora]",
        "[data]",
        "[packing]",
        "[batch]",
        "[optimizer]",
        "[schedule]",
        "[run]",
        "\"\"\"",
        "'''",
        "nan",
        "inf",
        "-1",
        "18446744073709551616",
        "1e400",
        "true",
        "[[",
        "]]",
        "\\u0000",
        "1979-05-27",
    ],
};
