//! A typed, shaped piece of device memory.

use crate::{Cpu, DType, Device, DeviceError, Element};
use half::{bf16, f16};

/// Contiguous, row-major elements of one type on one device.
#[derive(Debug)]
pub struct Tensor<D: Device> {
    device: D,
    buffer: D::Buffer,
    dtype: DType,
    shape: Vec<usize>,
}

impl<D: Device> Tensor<D> {
    /// A tensor of zeros.
    pub fn zeros(device: &D, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let too_large = || DeviceError::TooLarge {
            shape: shape.to_vec(),
            dtype,
        };
        let bytes = shape
            .iter()
            .try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim))
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or_else(too_large)?;
        Ok(Self {
            buffer: device.allocate(bytes)?,
            device: device.clone(),
            dtype,
            shape: shape.to_vec(),
        })
    }

    /// A tensor with the given elements.
    pub fn from_slice<T: Element>(
        device: &D,
        shape: &[usize],
        elements: &[T],
    ) -> Result<Self, DeviceError> {
        let mut tensor = Self::zeros(device, T::DTYPE, shape)?;
        if tensor.len() != elements.len() {
            return Err(DeviceError::WrongLength {
                shape: shape.to_vec(),
                needed: tensor.len(),
                got: elements.len(),
            });
        }
        tensor.write(elements)?;
        Ok(tensor)
    }

    /// The device that holds the elements.
    pub fn device(&self) -> &D {
        &self.device
    }
    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }
    /// The memory itself, for operations that launch device code.
    pub fn buffer(&self) -> &D::Buffer {
        &self.buffer
    }
    /// The memory itself, for operations that launch device code.
    pub fn buffer_mut(&mut self) -> &mut D::Buffer {
        &mut self.buffer
    }

    /// Writes `elements` over the first `elements.len()` elements.
    pub fn write<T: Element>(&mut self, elements: &[T]) -> Result<(), DeviceError> {
        self.expect::<T>()?;
        self.device
            .write(&mut self.buffer, 0, bytemuck::cast_slice(elements))
    }

    /// Reads the first `elements.len()` elements.
    pub fn read<T: Element>(&self, elements: &mut [T]) -> Result<(), DeviceError> {
        self.expect::<T>()?;
        self.device
            .read(&self.buffer, 0, bytemuck::cast_slice_mut(elements))
    }

    /// All elements, copied to the host.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, DeviceError> {
        let mut elements = vec![T::zeroed(); self.len()];
        self.read(&mut elements)?;
        Ok(elements)
    }

    /// All elements as f32, copied to the host; exact for every floating-point type.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, DeviceError> {
        match self.dtype {
            DType::F32 => self.to_vec::<f32>(),
            DType::BF16 => Ok(self
                .to_vec::<bf16>()?
                .into_iter()
                .map(bf16::to_f32)
                .collect()),
            DType::F16 => Ok(self.to_vec::<f16>()?.into_iter().map(f16::to_f32).collect()),
            got => Err(DeviceError::WrongDType {
                expected: DType::F32,
                got,
            }),
        }
    }

    /// Copies the first `len` elements of `source`, which has the same type.
    pub fn copy_from(&mut self, source: &Tensor<D>, len: usize) -> Result<(), DeviceError> {
        if source.dtype != self.dtype {
            return Err(DeviceError::WrongDType {
                expected: self.dtype,
                got: source.dtype,
            });
        }
        let bytes = len * self.dtype.size();
        self.device
            .copy(&source.buffer, 0, &mut self.buffer, 0, bytes)
    }

    /// Sets every element to zero.
    pub fn zero(&mut self) -> Result<(), DeviceError> {
        let bytes = self.bytes();
        self.device.zero(&mut self.buffer, 0, bytes)
    }

    fn expect<T: Element>(&self) -> Result<(), DeviceError> {
        if self.dtype == T::DTYPE {
            Ok(())
        } else {
            Err(DeviceError::WrongDType {
                expected: T::DTYPE,
                got: self.dtype,
            })
        }
    }
}

impl Tensor<Cpu> {
    /// The elements in place.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], DeviceError> {
        self.expect::<T>()?;
        let len = self.bytes();
        Ok(bytemuck::cast_slice(&self.buffer.as_bytes()[..len]))
    }

    /// The elements in place.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], DeviceError> {
        self.expect::<T>()?;
        let len = self.bytes();
        Ok(bytemuck::cast_slice_mut(
            &mut self.buffer.as_bytes_mut()[..len],
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_gives_back_what_was_written() {
        let cpu = Cpu::new(1).unwrap();
        let tensor = Tensor::from_slice(&cpu, &[2, 3], &[1f32, 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!(
            tensor.to_vec::<f32>().unwrap(),
            tensor.as_slice::<f32>().unwrap()
        );
        assert!(matches!(
            tensor.to_vec::<u32>(),
            Err(DeviceError::WrongDType { .. })
        ));
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        let cpu = Cpu::new(1).unwrap();
        let error = Tensor::zeros(&cpu, DType::F32, &[usize::MAX, 2]).unwrap_err();
        assert!(matches!(error, DeviceError::TooLarge { .. }));
    }

    #[test]
    fn writing_past_the_end_is_refused() {
        let cpu = Cpu::new(1).unwrap();
        let mut tensor = Tensor::zeros(&cpu, DType::F32, &[2]).unwrap();
        assert!(matches!(
            tensor.write(&[0f32; 3]),
            Err(DeviceError::OutOfRange { .. })
        ));
        assert!(Tensor::zeros(&cpu, DType::F32, &[0]).unwrap().is_empty());
    }
}
