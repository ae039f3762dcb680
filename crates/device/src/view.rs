//! Operands of operations: borrowed, typed and shaped ranges of memory.

use crate::{Cpu, DType, Device, DeviceError, Element, Shape, Tensor, arena::Piece};
use half::{bf16, f16};
use std::{fmt, marker::PhantomData, ops::Range};

/// Contiguous, row-major elements of one type on one device, borrowed for reading.
///
/// A view consists of a few numbers and is copied freely. Nothing writes to its memory while it
/// lives.
pub struct View<'a, D: Device> {
    device: &'a D,
    start: *mut u8,
    dtype: DType,
    shape: Shape,
    memory: PhantomData<&'a D::Buffer>,
}

/// A [`View`] for writing: nothing else reads or writes its memory while it lives.
pub struct ViewMut<'a, D: Device> {
    // This view is never given away for longer than `self` is borrowed.
    view: View<'a, D>,
    memory: PhantomData<&'a mut D::Buffer>,
}

// SAFETY: a view is a shared reference to bytes that belong to a buffer, which is `Sync`.
unsafe impl<D: Device> Send for View<'_, D> {}
// SAFETY: a shared view only allows reading.
unsafe impl<D: Device> Sync for View<'_, D> {}
// SAFETY: a mutable view is an exclusive reference to bytes that belong to a buffer, which is `Send`.
unsafe impl<D: Device> Send for ViewMut<'_, D> {}
// SAFETY: a shared mutable view only allows reading.
unsafe impl<D: Device> Sync for ViewMut<'_, D> {}

impl<D: Device> Clone for View<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for View<'_, D> {}

impl<D: Device> fmt::Debug for View<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} on {:?}", self.dtype, self.shape, self.device)
    }
}

impl<D: Device> fmt::Debug for ViewMut<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

impl<'a, D: Device> View<'a, D> {
    /// # Safety
    /// For `'a`, the bytes of `shape` from `start` on are memory of `device` that is alive, is
    /// aligned for `dtype`, and is not written.
    pub(crate) unsafe fn from_raw(
        device: &'a D,
        start: *mut u8,
        dtype: DType,
        shape: Shape,
    ) -> Self {
        Self {
            device,
            start,
            dtype,
            shape,
            memory: PhantomData,
        }
    }

    /// Elements of tensors that lie one after the other in an arena ([`Tensor::precedes`]), as
    /// `[elements]`. The alignment gaps between them are included: nothing else uses these, and
    /// they are zero unless they were written through such a view.
    pub fn joined(
        tensors: impl IntoIterator<Item = &'a Tensor<D>>,
    ) -> Result<Option<Self>, DeviceError> {
        let mut run = Run::default();
        for tensor in tensors {
            run.add(tensor.piece(), tensor.dtype())?;
        }
        let Some((piece, dtype, bytes)) = run.whole else {
            return Ok(None);
        };
        let shape = Shape::flat(bytes / dtype.size());
        // SAFETY: the pieces, borrowed for `'a`, make up these bytes.
        Ok(Some(unsafe {
            Self::from_raw(piece.device(), piece.start(), dtype, shape)
        }))
    }

    /// The device that holds the elements.
    pub fn device(&self) -> &'a D {
        self.device
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
    /// Address of the first element, as the device counts.
    pub fn as_ptr(&self) -> *const u8 {
        self.start
    }

    /// Takes rows `range` of the outermost dimension.
    pub fn rows(self, range: Range<usize>) -> Result<Self, DeviceError> {
        let rows = self.shape.first().copied().unwrap_or(1);
        let row = self.shape.iter().skip(1).product::<usize>() * self.dtype.size();
        inside(&range, rows)?;
        Ok(Self {
            // SAFETY: the rows before `range.start` lie within the view, hence in one allocation.
            start: unsafe { self.start.add(range.start * row) },
            shape: self.shape.with_rows(range.len()),
            ..self
        })
    }

    /// Takes elements `range`, counted over all dimensions, as `[range.len()]`.
    pub fn elements(self, range: Range<usize>) -> Result<Self, DeviceError> {
        let all = Self {
            shape: Shape::flat(self.len()),
            ..self
        };
        all.rows(range)
    }

    /// The same elements with other dimensions.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self, DeviceError> {
        let dims = Shape::new(shape)?;
        if dims.bytes(self.dtype)? != self.bytes() {
            return Err(DeviceError::WrongLength {
                shape: shape.to_vec(),
                needed: dims.elements(),
                got: self.len(),
            });
        }
        Ok(Self {
            shape: dims,
            ..self
        })
    }

    /// The same bytes as elements of another type, `[bytes / size]`. Returns an error unless they
    /// are a whole number of such elements and aligned for them.
    pub fn reinterpreted(self, dtype: DType) -> Result<Self, DeviceError> {
        let (bytes, size) = (self.bytes(), dtype.size());
        if !bytes.is_multiple_of(size) || !self.start.addr().is_multiple_of(size) {
            return Err(DeviceError::WrongDType {
                expected: dtype,
                got: self.dtype,
            });
        }
        Ok(Self {
            dtype,
            shape: Shape::flat(bytes / size),
            ..self
        })
    }

    /// Reads the first `elements.len()` elements.
    pub fn read<T: Element>(self, elements: &mut [T]) -> Result<(), DeviceError> {
        self.expect(T::DTYPE)?;
        let first = self.elements(0..elements.len())?;
        self.device.read(first, bytemuck::cast_slice_mut(elements))
    }

    /// Copies all elements to the host.
    pub fn to_vec<T: Element>(self) -> Result<Vec<T>, DeviceError> {
        let mut elements = vec![T::zeroed(); self.len()];
        self.read(&mut elements)?;
        Ok(elements)
    }

    /// Copies all elements to the host as f32; exact for every floating-point type.
    pub fn to_f32_vec(self) -> Result<Vec<f32>, DeviceError> {
        match self.dtype {
            DType::BF16 => Ok(widened(&self.to_vec()?, bf16::to_f32)),
            DType::F16 => Ok(widened(&self.to_vec()?, f16::to_f32)),
            _ => self.to_vec::<f32>(),
        }
    }

    fn expect(&self, expected: DType) -> Result<(), DeviceError> {
        match self.dtype == expected {
            true => Ok(()),
            false => Err(DeviceError::WrongDType {
                expected,
                got: self.dtype,
            }),
        }
    }
}

fn widened<T: Copy>(elements: &[T], widen: fn(T) -> f32) -> Vec<f32> {
    elements.iter().map(|&element| widen(element)).collect()
}

fn inside(range: &Range<usize>, len: usize) -> Result<(), DeviceError> {
    match range.start <= range.end && range.end <= len {
        true => Ok(()),
        false => Err(DeviceError::OutOfRange {
            start: range.start,
            end: range.end,
            len,
        }),
    }
}

impl<'a, D: Device> ViewMut<'a, D> {
    /// # Safety
    /// As for [`View::from_raw`]; in addition, nothing else reads the memory for `'a`.
    pub(crate) unsafe fn from_raw(
        device: &'a D,
        start: *mut u8,
        dtype: DType,
        shape: Shape,
    ) -> Self {
        Self {
            // SAFETY: the caller guarantees what both functions require.
            view: unsafe { View::from_raw(device, start, dtype, shape) },
            memory: PhantomData,
        }
    }

    /// Like [`View::joined`], for writing.
    pub fn joined(
        tensors: impl IntoIterator<Item = &'a mut Tensor<D>>,
    ) -> Result<Option<Self>, DeviceError> {
        let tensors = tensors.into_iter().map(|tensor| &*tensor);
        let view = View::joined(tensors)?;
        Ok(view.map(|view| Self {
            // Every tensor in the range is borrowed exclusively for `'a`.
            view,
            memory: PhantomData,
        }))
    }

    /// The device that holds the elements.
    pub fn device(&self) -> &'a D {
        self.view.device
    }
    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.view.dtype
    }
    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.view.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.view.len()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.view.is_empty()
    }
    /// Size of the elements in bytes.
    pub fn bytes(&self) -> usize {
        self.view.bytes()
    }
    /// Address of the first element, as the device counts.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.view.start
    }

    /// The same memory, for reading.
    pub fn as_view(&self) -> View<'_, D> {
        self.view
    }

    /// The same memory, for reading as long as it was borrowed.
    pub fn into_view(self) -> View<'a, D> {
        self.view
    }

    /// The same memory, for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, D> {
        ViewMut {
            view: self.view,
            memory: PhantomData,
        }
    }

    /// Takes rows `range` of the outermost dimension.
    pub fn rows(self, range: Range<usize>) -> Result<Self, DeviceError> {
        self.map(|view| view.rows(range))
    }

    /// Takes elements `range`, counted over all dimensions, as `[range.len()]`.
    pub fn elements(self, range: Range<usize>) -> Result<Self, DeviceError> {
        self.map(|view| view.elements(range))
    }

    /// The same elements with other dimensions.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self, DeviceError> {
        self.map(|view| view.reshaped(shape))
    }

    /// Splits into rows `0..row` and the others: two views without shared memory.
    pub fn split_rows(self, row: usize) -> Result<(Self, Self), DeviceError> {
        let rows = self.view.shape.first().copied().unwrap_or(1);
        let halves = [self.view.rows(0..row)?, self.view.rows(row..rows)?];
        let [before, behind] = halves.map(|view| Self {
            view,
            memory: PhantomData,
        });
        Ok((before, behind))
    }

    fn map(
        self,
        narrow: impl FnOnce(View<'a, D>) -> Result<View<'a, D>, DeviceError>,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            view: narrow(self.view)?,
            memory: PhantomData,
        })
    }

    /// Writes `elements` over the first `elements.len()` elements.
    pub fn write<T: Element>(self, elements: &[T]) -> Result<(), DeviceError> {
        self.view.expect(T::DTYPE)?;
        let first = self.elements(0..elements.len())?;
        first.device().write(first, bytemuck::cast_slice(elements))
    }

    /// Writes `bytes`, little-endian elements of this view's type, over all elements.
    pub fn write_bytes(self, bytes: &[u8]) -> Result<(), DeviceError> {
        if bytes.len() != self.bytes() {
            return Err(DeviceError::WrongLength {
                shape: self.shape().to_vec(),
                needed: self.bytes(),
                got: bytes.len(),
            });
        }
        self.device().write(self, bytes)
    }

    /// Copies as many elements of the same type as this view has from the start of `source`.
    pub fn copy_from(self, source: View<'_, D>) -> Result<(), DeviceError> {
        source.expect(self.dtype())?;
        if !self.device().shares_memory_with(source.device) {
            return Err(DeviceError::OtherDevice {
                expected: self.device().name(),
                got: source.device.name(),
            });
        }
        let source = source.elements(0..self.len())?;
        self.device().copy(source, self)
    }

    /// Sets every element to zero.
    pub fn zero(self) -> Result<(), DeviceError> {
        self.device().zero(self)
    }
}

impl<'a> View<'a, Cpu> {
    /// The elements in place.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T], DeviceError> {
        self.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice(self.as_bytes()))
    }

    /// The bytes in place.
    pub fn as_bytes(&self) -> &'a [u8] {
        // SAFETY: the bytes are alive and not written for `'a`, as the type guarantees; memory of
        // the CPU is always initialised.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes()) }
    }
}

impl<'a> ViewMut<'a, Cpu> {
    /// The elements in place.
    pub fn into_slice<T: Element>(self) -> Result<&'a mut [T], DeviceError> {
        self.view.expect(T::DTYPE)?;
        Ok(bytemuck::cast_slice_mut(self.into_bytes()))
    }

    /// The bytes in place.
    pub fn into_bytes(self) -> &'a mut [u8] {
        // SAFETY: the bytes are alive and used by nothing else for `'a`, as the type guarantees;
        // memory of the CPU is always initialised.
        unsafe { std::slice::from_raw_parts_mut(self.view.start, self.view.bytes()) }
    }
}

/// Adjacent pieces of one arena.
struct Run<'a, D: Device> {
    /// First piece, type of all pieces, and number of bytes from the start of the first to the end
    /// of the last.
    whole: Option<(&'a Piece<D>, DType, usize)>,
    last: Option<&'a Piece<D>>,
}

impl<D: Device> Default for Run<'_, D> {
    fn default() -> Self {
        Self {
            whole: None,
            last: None,
        }
    }
}

impl<'a, D: Device> Run<'a, D> {
    fn add(&mut self, piece: &'a Piece<D>, dtype: DType) -> Result<(), DeviceError> {
        match (&mut self.whole, self.last) {
            (Some((_, of_all, bytes)), Some(last)) => {
                if *of_all != dtype {
                    return Err(DeviceError::WrongDType {
                        expected: *of_all,
                        got: dtype,
                    });
                }
                if !last.precedes(piece) {
                    return Err(DeviceError::Apart);
                }
                *bytes += piece.bytes();
            }
            _ => self.whole = Some((piece, dtype, piece.bytes())),
        }
        self.last = Some(piece);
        Ok(())
    }
}
