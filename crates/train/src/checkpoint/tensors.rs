//! Tensors of the device to a safetensors file and back, one at a time.

use super::CheckpointError;
use crate::{TrainError, files::at};
use safetensors::{
    Dtype, View,
    tensor::{Metadata, serialize_to_file},
};
use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::Path,
};
use tightrope_device::{Device, Tensor};

/// Largest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// An f32 tensor that is copied from the device when its turn comes.
struct OnDevice<'a, D: Device>(&'a Tensor<D>);

impl<D: Device> View for &OnDevice<'_, D> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // `write_tensors` has checked the type, the only thing that reading can object to here.
        let elements = self.0.to_vec::<f32>().unwrap_or_default();
        let bytes = elements.iter().flat_map(|x| x.to_le_bytes());
        Cow::Owned(bytes.collect())
    }
    fn data_len(&self) -> usize {
        self.0.bytes()
    }
}

/// Writes f32 tensors.
pub(crate) fn write_tensors<'a, D: Device>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor<D>)>,
) -> Result<(), TrainError> {
    let views: Vec<_> = tensors
        .into_iter()
        .map(|(name, tensor)| (name, OnDevice(tensor)))
        .collect();
    let views = views.iter().map(|(name, view)| (name.as_str(), view));
    serialize_to_file(views, None, path).map_err(|error| TrainError::Io {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })?;
    // The safetensors crate makes its files readable by their owner alone.
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .map_err(at(path))?;
    Ok(())
}

/// Reads exactly these f32 tensors from a file that holds these and no others.
pub(crate) fn read_tensors<'a, D: Device>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a mut Tensor<D>)>,
) -> Result<(), TrainError> {
    let mismatch = |reason: String| CheckpointError::Mismatch {
        path: path.to_owned(),
        reason,
    };
    let mut file = File::open(path).map_err(at(path))?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(at(path))?;
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER {
        return Err(mismatch(format!("a header of {size} bytes")).into());
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(at(path))?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| mismatch(error.to_string()))?;
    let mut stored: HashMap<String, _> = header.tensors();
    for (name, tensor) in tensors {
        let info = stored
            .remove(&name)
            .ok_or_else(|| mismatch(format!("`{name}` is missing")))?;
        let bytes = info.data_offsets.1.saturating_sub(info.data_offsets.0);
        if info.dtype != Dtype::F32 || info.shape != tensor.shape() || bytes != tensor.bytes() {
            return Err(mismatch(format!(
                "`{name}`: expected F32 {:?}, got {:?} {:?}",
                tensor.shape(),
                info.dtype,
                info.shape
            ))
            .into());
        }
        let start = 8 + size + info.data_offsets.0 as u64;
        let mut data = vec![0; bytes];
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut data))
            .map_err(at(path))?;
        let (whole, _) = data.as_chunks::<4>();
        let elements: Vec<f32> = whole
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        tensor.write(&elements)?;
    }
    match stored.keys().next() {
        None => Ok(()),
        Some(name) => Err(mismatch(format!("`{name}` belongs to no parameter")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_device::{Cpu, DType};

    #[test]
    fn tensors_come_back_bit_for_bit_and_wrong_ones_are_refused() {
        let cpu = Cpu::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let values = [f32::MIN_POSITIVE, -0.0, 1.0 / 3.0, f32::MAX, 5.0, 6.0];
        let a = Tensor::from_slice(&cpu, &[2, 3], &values).unwrap();
        let empty = Tensor::zeros(&cpu, DType::F32, &[0]).unwrap();
        write_tensors(&path, [("a".into(), &a), ("empty".into(), &empty)]).unwrap();

        let mut b = Tensor::zeros(&cpu, DType::F32, &[2, 3]).unwrap();
        let mut none = Tensor::zeros(&cpu, DType::F32, &[0]).unwrap();
        read_tensors(&path, [("a".into(), &mut b), ("empty".into(), &mut none)]).unwrap();
        let bits = |t: &Tensor<Cpu>| -> Vec<u32> {
            t.to_vec::<f32>()
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect()
        };
        assert_eq!(bits(&a), bits(&b));

        let message = |result: Result<(), TrainError>| result.unwrap_err().to_string();
        let missing = message(read_tensors(&path, [("x".into(), &mut b)]));
        assert!(missing.contains("`x` is missing"), "{missing}");
        let unknown = message(read_tensors(&path, [("a".into(), &mut b)]));
        assert!(
            unknown.contains("`empty` belongs to no parameter"),
            "{unknown}"
        );
        let mut flat = Tensor::zeros(&cpu, DType::F32, &[6]).unwrap();
        let shape = message(read_tensors(&path, [("a".into(), &mut flat)]));
        assert!(shape.contains("[6]") && shape.contains("[2, 3]"), "{shape}");
    }
}
