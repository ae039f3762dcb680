//! One allocation that holds many tensors.

use crate::{Buffer, DType, Device, DeviceError, Shape, Tensor};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Memory that is laid out before it is used: a plan gives the offsets at which tensors are taken.
///
/// A tensor owns its range; the memory is freed when the arena and all its tensors are gone.
#[derive(Debug)]
pub struct Arena<D: Device> {
    block: Arc<Block<D>>,
    bytes: usize,
    /// End of each taken range, by its start.
    taken: BTreeMap<usize, usize>,
}

/// An allocation with its device.
struct Block<D: Device> {
    device: D,
    buffer: D::Buffer,
}

impl<D: Device> Block<D> {
    fn allocate(device: &D, bytes: usize) -> Result<Arc<Self>, DeviceError> {
        Ok(Arc::new(Self {
            device: device.clone(),
            buffer: device.allocate(bytes)?,
        }))
    }
}

impl<D: Device> fmt::Debug for Block<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {:?}", self.buffer, self.device)
    }
}

/// A range of an allocation that nothing else uses.
#[derive(Debug)]
pub(crate) struct Piece<D: Device> {
    block: Arc<Block<D>>,
    offset: usize,
    bytes: usize,
}

/// Alignment of tensors in an arena, in bytes: enough for every device and library, and a whole
/// number of the blocks in which 8-bit moments of f32 parameters are stored.
pub const ALIGNMENT: usize = 1024;

/// Number of bytes that a tensor of `bytes` bytes takes in an arena: the next multiple of
/// [`ALIGNMENT`].
pub fn reserved(bytes: usize) -> usize {
    bytes.div_ceil(ALIGNMENT).saturating_mul(ALIGNMENT)
}

impl<D: Device> Arena<D> {
    /// Allocates an arena of `bytes` zero bytes.
    pub fn new(device: &D, bytes: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            block: Block::allocate(device, bytes)?,
            bytes,
            taken: BTreeMap::new(),
        })
    }

    /// Size of the arena in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the tensor at `offset`, a multiple of [`ALIGNMENT`]. Returns an error if the range
    /// overlaps a tensor that was taken before, or exceeds the arena.
    pub fn tensor(
        &mut self,
        offset: usize,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Tensor<D>, DeviceError> {
        let shape = Shape::new(shape)?;
        let bytes = reserved(shape.bytes(dtype)?);
        let refused = DeviceError::Taken {
            offset,
            bytes,
            len: self.bytes,
        };
        let end = offset.checked_add(bytes).filter(|&end| end <= self.bytes);
        let Some(end) = end.filter(|_| offset.is_multiple_of(ALIGNMENT)) else {
            return Err(refused);
        };
        let before = self.taken.range(..end).next_back();
        if before.is_some_and(|(_, &before_end)| before_end > offset) {
            return Err(refused);
        }
        if bytes > 0 {
            self.taken.insert(offset, end);
        }
        let piece = Piece {
            block: self.block.clone(),
            offset,
            bytes,
        };
        Ok(Tensor::in_piece(piece, dtype, shape))
    }
}

impl<D: Device> Piece<D> {
    /// A piece with an allocation of its own.
    pub(crate) fn alone(device: &D, bytes: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            block: Block::allocate(device, bytes)?,
            offset: 0,
            bytes,
        })
    }

    pub(crate) fn device(&self) -> &D {
        &self.block.device
    }

    pub(crate) fn start(&self) -> *mut u8 {
        // SAFETY: the offset lies within the buffer, or at its end for an empty piece.
        unsafe { self.block.buffer.start().add(self.offset) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether `next` begins where this piece ends.
    pub(crate) fn precedes(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.block, &next.block) && self.offset + self.bytes == next.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, View, ViewMut};

    #[test]
    fn no_two_tensors_share_a_byte() {
        let cpu = Cpu::new(1).unwrap();
        let mut arena = Arena::new(&cpu, 4 * ALIGNMENT).unwrap();
        let first = arena.tensor(ALIGNMENT, DType::F32, &[257]).unwrap();
        for offset in [0, ALIGNMENT, 2 * ALIGNMENT, 4 * ALIGNMENT, usize::MAX, 7] {
            let refused = arena.tensor(offset, DType::F32, &[257]);
            assert!(
                matches!(refused, Err(DeviceError::Taken { .. })),
                "{offset}"
            );
        }
        assert!(arena.tensor(0, DType::F32, &[usize::MAX]).is_err());
        let mut others =
            [0, 3 * ALIGNMENT].map(|offset| arena.tensor(offset, DType::U8, &[ALIGNMENT]).unwrap());
        arena.tensor(ALIGNMENT, DType::U8, &[0, 3]).unwrap();
        for other in &mut others {
            other.write(&[1u8; ALIGNMENT]).unwrap();
        }
        drop(arena);
        assert_eq!(first.to_vec::<f32>().unwrap(), [0.0; 257]);
    }

    #[test]
    fn neighbours_are_joined_and_others_are_not() {
        let cpu = Cpu::new(1).unwrap();
        let mut arena = Arena::new(&cpu, 5 * ALIGNMENT).unwrap();
        let mut take = |at: usize, len| arena.tensor(at * ALIGNMENT, DType::F32, &[len]).unwrap();
        let (mut a, mut b, c) = (take(0, 3), take(1, 300), take(4, 1));
        a.write(&[1f32, 2., 3.]).unwrap();
        let mut joined = ViewMut::joined([&mut a, &mut b]).unwrap().unwrap();
        assert_eq!(joined.len(), 3 * ALIGNMENT / 4);
        let second = joined.reborrow().elements(256..258).unwrap();
        second.write(&[7f32, 8.]).unwrap();
        let all = joined.as_view().to_vec::<f32>().unwrap();
        assert_eq!(all[..4], [1., 2., 3., 0.]);
        assert_eq!(b.to_vec::<f32>().unwrap()[..3], [7., 8., 0.]);
        assert!(a.precedes(&b) && !b.precedes(&a) && !b.precedes(&c));
        let apart = View::joined([&a, &c]);
        assert!(matches!(apart, Err(DeviceError::Apart)));
        assert!(View::<Cpu>::joined([]).unwrap().is_none());
    }
}
