//! Tensors in several files, found through the index that names them.

use crate::{BOUNDARY, Target, files, folder, model};
use tightrope_formats::{Tensors, safetensors};

pub(super) const INDEX: Target = Target {
    name: "index",
    run: |bytes| {
        let [index, shard] = files(bytes);
        let (_folder, path) = folder(&[(safetensors::INDEX, index), ("a.safetensors", shard)])?;
        let tensors = Tensors::open(&path)?;
        for name in tensors.names() {
            tensors.read_f32(name)?;
        }
        safetensors::metadata(&path.join("a.safetensors"))?;
        Ok(())
    },
    seeds: || {
        let index = model::index("a.safetensors").to_string();
        vec![[index.as_bytes(), BOUNDARY, &model::weights()].concat()]
    },
    words: &[
        "weight_map",
        "metadata",
        "total_size",
        "a.safetensors",
        "../a.safetensors",
        "model.norm.weight",
        "__metadata__",
        "data_offsets",
        "F8_E4M3",
        "BOOL",
        "18446744073709551615",
    ],
};
