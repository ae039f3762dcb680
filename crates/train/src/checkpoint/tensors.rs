//! Writes tensors of the device to a safetensors file and reads them back, one at a time.

use super::CheckpointError;
use crate::TrainError;
use std::{cmp::Reverse, collections::BTreeSet, path::Path};
use tightrope_device::{DType, Device, DeviceError, View, ViewMut};
use tightrope_formats::{Encoding, TensorOut, Tensors, safetensors};

/// Encoding of the type in the file; returns an error if tensors of this type are not stored.
fn encoding(dtype: DType) -> Result<Encoding, DeviceError> {
    match dtype {
        DType::F32 => Ok(Encoding::F32),
        DType::BF16 => Ok(Encoding::Bf16),
        DType::U8 => Ok(Encoding::U8),
        got => Err(DeviceError::WrongDType {
            expected: DType::F32,
            got,
        }),
    }
}

/// Bytes of the tensor in the file, which are those in the memory of the device.
fn stored<D: Device>(tensor: View<'_, D>) -> Result<Vec<u8>, TrainError> {
    let mut bytes = vec![0; tensor.bytes()];
    tensor.device().read(tensor, &mut bytes)?;
    Ok(bytes)
}

/// Writes tensors of f32, bf16 or u8, copied from the device one at a time; `about` describes them by key
/// and value.
pub(crate) fn write_tensors<'a, D: Device>(
    path: &Path,
    about: &[(&str, &str)],
    tensors: impl IntoIterator<Item = (String, View<'a, D>)>,
) -> Result<(), TrainError> {
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    // The widest types come first, so that each tensor lies at a multiple of the size of its type.
    tensors.sort_by_cached_key(|(name, tensor)| (Reverse(tensor.dtype().size()), name.clone()));
    let out = tensors.into_iter().map(|(name, tensor)| {
        let (encoding, shape) = (encoding(tensor.dtype())?, tensor.shape().to_vec());
        Ok(TensorOut::new(name, encoding, &shape, move || {
            stored(tensor)
        }))
    });
    safetensors::write(path, about, out.collect::<Result<_, TrainError>>()?)
}

/// Reads exactly these tensors from a file with these tensors and no others. If the file describes
/// them, the description must agree with `about`.
pub(crate) fn read_tensors<'a, D: Device>(
    path: &Path,
    about: &[(&str, &str)],
    tensors: impl IntoIterator<Item = (String, ViewMut<'a, D>)>,
) -> Result<(), TrainError> {
    let written = safetensors::metadata(path)?;
    for &(key, here) in about {
        if let Some(there) = written.get(key).filter(|there| *there != here) {
            return Err(CheckpointError::Mismatch {
                path: path.to_owned(),
                reason: format!(
                    "written with {key} = \"{there}\", which cannot be read as \"{here}\"; put the \
                     old value back, or start afresh"
                ),
            }
            .into());
        }
    }
    restore(&Tensors::open(path)?, tensors)
}

/// Reads exactly these tensors from files with these tensors and no others.
pub(crate) fn restore<'a, D: Device>(
    files: &Tensors,
    tensors: impl IntoIterator<Item = (String, ViewMut<'a, D>)>,
) -> Result<(), TrainError> {
    let mismatch = |name: &str, reason: String| {
        TrainError::from(CheckpointError::Mismatch {
            path: files.file(name).to_owned(),
            reason,
        })
    };
    let mut strangers: BTreeSet<&str> = files.names().collect();
    for (name, tensor) in tensors {
        let info = files.info(&name);
        let info = info.ok_or_else(|| mismatch(&name, format!("`{name}` is missing")))?;
        let encoding = encoding(tensor.dtype())?;
        if info.encoding != encoding || info.shape != tensor.shape() {
            let reason = format!(
                "`{name}`: expected {} {:?}, got {} {:?}",
                encoding.name(),
                tensor.shape(),
                info.encoding.name(),
                info.shape
            );
            return Err(mismatch(&name, reason));
        }
        tensor.write_bytes(&files.read(&name)?)?;
        strangers.remove(&*name);
    }
    match strangers.first() {
        None => Ok(()),
        Some(name) => Err(mismatch(name, format!("`{name}` belongs to no parameter"))),
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
        let a = Tensor::zeros(&cpu, DType::F16, &[1]).unwrap();
        let error = message(write_tensors(&path, &[], [("a".into(), a.view())]));
        assert!(error.contains("f16"), "{error}");
        assert!(!path.exists());
    }
}
