//! Tensors of the device to a safetensors file and back, one at a time.

use super::CheckpointError;
use crate::{TrainError, files::at};
use safetensors::{Dtype, tensor::Metadata};
use serde_json::{Map, Value, json};
use std::{
    cmp::Reverse,
    collections::HashMap,
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};
use tightrope_device::{DType, Device, DeviceError, View, ViewMut};

/// Largest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// The type in the file; an error if tensors of this type are not kept in files.
fn file_dtype(dtype: DType) -> Result<Dtype, DeviceError> {
    match dtype {
        DType::F32 => Ok(Dtype::F32),
        DType::U8 => Ok(Dtype::U8),
        got => Err(DeviceError::WrongDType {
            expected: DType::F32,
            got,
        }),
    }
}

/// The bytes in the file.
fn stored<D: Device>(tensor: View<'_, D>) -> Result<Vec<u8>, DeviceError> {
    if tensor.dtype() == DType::U8 {
        return tensor.to_vec();
    }
    let elements = tensor.to_vec::<f32>()?;
    Ok(elements.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// Puts bytes of a file, as many as the tensor has, into it.
fn restore<D: Device>(tensor: ViewMut<'_, D>, bytes: &[u8]) -> Result<(), DeviceError> {
    if tensor.dtype() == DType::U8 {
        return tensor.write(bytes);
    }
    let elements = bytes.as_chunks::<4>().0.iter();
    let elements: Vec<f32> = elements.map(|bytes| f32::from_le_bytes(*bytes)).collect();
    tensor.write(&elements)
}

/// Writes tensors of f32 or u8, one copied from the device at a time; `about` says, by key and value,
/// what they are.
pub(crate) fn write_tensors<'a, D: Device>(
    path: &Path,
    about: &[(&str, &str)],
    tensors: impl IntoIterator<Item = (String, View<'a, D>)>,
) -> Result<(), TrainError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    // As the format wants it: the widest types first, so that each lies at a multiple of its size.
    tensors.sort_by_cached_key(|(name, tensor)| (Reverse(tensor.dtype().size()), name.clone()));
    let mut header = Map::new();
    if !about.is_empty() {
        let about: Map<_, _> = about.iter().map(|&(k, v)| (k.into(), v.into())).collect();
        header.insert("__metadata__".into(), about.into());
    }
    let mut start = 0;
    for (name, tensor) in &tensors {
        let end = start + tensor.bytes();
        let description = json!({
            "dtype": file_dtype(tensor.dtype())?,
            "shape": tensor.shape(),
            "data_offsets": [start, end],
        });
        header.insert(name.clone(), description);
        start = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(at(path))?);
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(at(path));
    write(&(header.len() as u64).to_le_bytes())?;
    write(&header)?;
    for (_, tensor) in &tensors {
        write(&stored(*tensor)?)?;
    }
    file.flush().map_err(at(path))
}

/// Reads exactly these tensors from a file that holds these and no others. Where the file says what
/// they are, it must say the same as `about`.
pub(crate) fn read_tensors<'a, D: Device>(
    path: &Path,
    about: &[(&str, &str)],
    tensors: impl IntoIterator<Item = (String, ViewMut<'a, D>)>,
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
    let written = header.metadata().as_ref();
    for (key, here) in about {
        let there = written.and_then(|written| written.get(*key));
        if let Some(there) = there.filter(|there| there != here) {
            return Err(mismatch(format!(
                "written with {key} = \"{there}\", which cannot be read as \"{here}\"; put the old \
                 value back, or start afresh"
            ))
            .into());
        }
    }
    let mut stored: HashMap<String, _> = header.tensors();
    for (name, tensor) in tensors {
        let info = stored
            .remove(&name)
            .ok_or_else(|| mismatch(format!("`{name}` is missing")))?;
        let bytes = info.data_offsets.1.saturating_sub(info.data_offsets.0);
        let dtype = file_dtype(tensor.dtype())?;
        if info.dtype != dtype || info.shape != tensor.shape() || bytes != tensor.bytes() {
            return Err(mismatch(format!(
                "`{name}`: expected {dtype:?} {:?}, got {:?} {:?}",
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
        restore(tensor, &data)?;
    }
    match stored.keys().next() {
        None => Ok(()),
        Some(name) => Err(mismatch(format!("`{name}` belongs to no parameter")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightrope_device::{Cpu, Tensor};

    fn message(result: Result<(), TrainError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn tensors_come_back_bit_for_bit_and_wrong_ones_are_refused() {
        let cpu = Cpu::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let values = [f32::MIN_POSITIVE, -0.0, 1.0 / 3.0, f32::MAX, 5.0, 6.0];
        let a = Tensor::from_slice(&cpu, &[2, 3], &values).unwrap();
        let codes = Tensor::from_slice(&cpu, &[5], &[0u8, 1, 127, 128, 255]).unwrap();
        let empty = Tensor::zeros(&cpu, DType::F32, &[0]).unwrap();
        let all = [
            ("a".into(), a.view()),
            ("codes".into(), codes.view()),
            ("empty".into(), empty.view()),
        ];
        write_tensors(&path, &[], all).unwrap();

        let mut b = Tensor::zeros(&cpu, DType::F32, &[2, 3]).unwrap();
        let mut read = Tensor::zeros(&cpu, DType::U8, &[5]).unwrap();
        let mut none = Tensor::zeros(&cpu, DType::F32, &[0]).unwrap();
        let all = [
            ("a".into(), b.view_mut()),
            ("codes".into(), read.view_mut()),
            ("empty".into(), none.view_mut()),
        ];
        read_tensors(&path, &[], all).unwrap();
        let bits = |t: &Tensor<Cpu>| -> Vec<u32> {
            t.to_vec::<f32>()
                .unwrap()
                .iter()
                .map(|x| x.to_bits())
                .collect()
        };
        assert_eq!(bits(&a), bits(&b));
        assert_eq!(codes.to_vec::<u8>().unwrap(), read.to_vec::<u8>().unwrap());

        let missing = message(read_tensors(&path, &[], [("x".into(), b.view_mut())]));
        assert!(missing.contains("`x` is missing"), "{missing}");
        let all = [
            ("a".into(), b.view_mut()),
            ("codes".into(), read.view_mut()),
        ];
        let unknown = message(read_tensors(&path, &[], all));
        assert!(
            unknown.contains("`empty` belongs to no parameter"),
            "{unknown}"
        );
        let mut flat = Tensor::zeros(&cpu, DType::F32, &[6]).unwrap();
        let shape = message(read_tensors(&path, &[], [("a".into(), flat.view_mut())]));
        assert!(shape.contains("[6]") && shape.contains("[2, 3]"), "{shape}");
        let mut floats = Tensor::zeros(&cpu, DType::F32, &[5]).unwrap();
        let dtype = message(read_tensors(
            &path,
            &[],
            [("codes".into(), floats.view_mut())],
        ));
        assert!(dtype.contains("expected F32 [5], got U8 [5]"), "{dtype}");
    }

    #[test]
    fn what_a_file_says_about_its_tensors_is_compared() {
        let cpu = Cpu::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let mut a = Tensor::from_slice(&cpu, &[1], &[1u8]).unwrap();
        write_tensors(&path, &[("kind", "old")], [("a".into(), a.view())]).unwrap();
        for about in [&[][..], &[("kind", "old")], &[("another", "x")]] {
            read_tensors(&path, about, [("a".into(), a.view_mut())]).unwrap();
        }
        let error = message(read_tensors(
            &path,
            &[("kind", "new")],
            [("a".into(), a.view_mut())],
        ));
        assert!(
            error.contains("written with kind = \"old\", which cannot be read as \"new\""),
            "{error}"
        );
    }

    #[test]
    fn types_that_are_not_kept_are_refused() {
        let cpu = Cpu::new(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.safetensors");
        let a = Tensor::zeros(&cpu, DType::BF16, &[1]).unwrap();
        let error = message(write_tensors(&path, &[], [("a".into(), a.view())]));
        assert!(error.contains("bf16"), "{error}");
        assert!(!path.exists());
    }
}
