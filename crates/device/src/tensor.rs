//! Typed, shaped memory that is owned.

use crate::{Cpu, DType, Device, DeviceError, Element, Shape, View, ViewMut, arena::Piece};

/// Contiguous, row-major elements of one type on one device: an allocation of its own, or an
/// exclusive range of an [`Arena`](crate::Arena). Operations take its [`View`].
///
/// The shape always matches the memory, because no code outside reaches the memory itself:
/// ```compile_fail
/// use tightrope_device::{Cpu, DType, Tensor};
/// let cpu = Cpu::new(1).unwrap();
/// let mut a = Tensor::zeros(&cpu, DType::F32, &[2]).unwrap();
/// let mut b = Tensor::zeros(&cpu, DType::F32, &[1000]).unwrap();
/// std::mem::swap(a.piece_mut(), b.piece_mut());
/// ```
/// and a borrowed tensor cannot be written meanwhile:
/// ```compile_fail,E0502
/// use tightrope_device::{Cpu, DType, Tensor};
/// let cpu = Cpu::new(1).unwrap();
/// let mut a = Tensor::zeros(&cpu, DType::F32, &[2]).unwrap();
/// let view = a.view();
/// a.view_mut().zero().unwrap();
/// view.to_vec::<f32>().unwrap();
/// ```
#[derive(Debug)]
pub struct Tensor<D: Device> {
    piece: Piece<D>,
    dtype: DType,
    shape: Shape,
}

impl<D: Device> Tensor<D> {
    /// A tensor of zeros in an allocation of its own.
    pub fn zeros(device: &D, dtype: DType, shape: &[usize]) -> Result<Self, DeviceError> {
        let shape = Shape::new(shape)?;
        let piece = Piece::alone(device, shape.bytes(dtype)?)?;
        Ok(Self::in_piece(piece, dtype, shape))
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

    /// The piece must have at least the bytes of the shape.
    pub(crate) fn in_piece(piece: Piece<D>, dtype: DType, shape: Shape) -> Self {
        Self {
            piece,
            dtype,
            shape,
        }
    }

    pub(crate) fn piece(&self) -> &Piece<D> {
        &self.piece
    }

    /// View for reading.
    pub fn view(&self) -> View<'_, D> {
        let (device, start) = (self.piece.device(), self.piece.start());
        // SAFETY: the piece has the bytes of the shape, is alive while it is borrowed, and is written
        // by way of an exclusive borrow alone. Allocations and offsets are aligned for every type.
        unsafe { View::from_raw(device, start, self.dtype, self.shape) }
    }

    /// View for writing.
    pub fn view_mut(&mut self) -> ViewMut<'_, D> {
        let (device, start) = (self.piece.device(), self.piece.start());
        // SAFETY: the piece has the bytes of the shape, is nobody else's, and is borrowed
        // exclusively. Allocations and offsets are aligned for every type.
        unsafe { ViewMut::from_raw(device, start, self.dtype, self.shape) }
    }

    /// Whether `next` lies directly after this tensor in one arena ([`View::joined`]).
    pub fn precedes(&self, next: &Self) -> bool {
        self.piece.precedes(&next.piece)
    }

    /// The device that holds the elements.
    pub fn device(&self) -> &D {
        self.piece.device()
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
        self.shape.elements()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype.size()
    }

    /// Writes `elements` over the first `elements.len()` elements.
    pub fn write<T: Element>(&mut self, elements: &[T]) -> Result<(), DeviceError> {
        self.view_mut().write(elements)
    }

    /// Reads the first `elements.len()` elements.
    pub fn read<T: Element>(&self, elements: &mut [T]) -> Result<(), DeviceError> {
        self.view().read(elements)
    }

    /// Copies all elements to the host.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, DeviceError> {
        self.view().to_vec()
    }

    /// Copies all elements to the host as f32; exact for every floating-point type.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>, DeviceError> {
        self.view().to_f32_vec()
    }

    /// Sets every element to zero.
    pub fn zero(&mut self) -> Result<(), DeviceError> {
        self.view_mut().zero()
    }
}

impl Tensor<Cpu> {
    /// The elements in place; CPU only.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], DeviceError> {
        self.view().as_slice()
    }

    /// The elements in place; CPU only.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], DeviceError> {
        self.view_mut().into_slice()
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
        let error = Tensor::zeros(&cpu, DType::F32, &[1; 5]).unwrap_err();
        assert!(matches!(error, DeviceError::TooManyDimensions { .. }));
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

    #[test]
    fn views_are_cut_by_rows_and_by_elements() {
        let cpu = Cpu::new(1).unwrap();
        let numbers: Vec<u32> = (0..12).collect();
        let mut tensor = Tensor::from_slice(&cpu, &[3, 2, 2], &numbers).unwrap();
        let rows = tensor.view().rows(1..3).unwrap();
        assert_eq!(rows.shape(), [2, 2, 2]);
        assert_eq!(rows.as_slice::<u32>().unwrap(), &numbers[4..]);
        let some = rows.elements(3..5).unwrap();
        assert_eq!(some.to_vec::<u32>().unwrap(), [7, 8]);
        assert!(rows.rows(1..3).is_err() && rows.elements(9..9).is_err());
        assert_eq!(rows.reshaped(&[8]).unwrap().shape(), [8]);
        assert!(rows.reshaped(&[7]).is_err());
        let (before, behind) = tensor.view_mut().split_rows(1).unwrap();
        behind.zero().unwrap();
        before.write(&[9u32]).unwrap();
        let expected = [9, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(tensor.to_vec::<u32>().unwrap(), expected);
    }
}
