//! Dimensions of a tensor, stored in place.

use crate::{DType, DeviceError};
use std::{fmt, ops::Deref};

/// The dimensions of a tensor, outermost first: at most [`Shape::MOST`] of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; Self::MOST],
    rank: u8,
}

impl Shape {
    /// Largest number of dimensions.
    pub const MOST: usize = 4;

    /// Returns an error if there are too many dimensions.
    pub fn new(dims: &[usize]) -> Result<Self, DeviceError> {
        let mut shape = Self {
            dims: [0; Self::MOST],
            rank: dims.len() as u8,
        };
        let Some(places) = shape.dims.get_mut(..dims.len()) else {
            return Err(DeviceError::TooManyDimensions {
                shape: dims.to_vec(),
            });
        };
        places.copy_from_slice(dims);
        Ok(shape)
    }

    /// The shape `[elements]`.
    pub(crate) fn flat(elements: usize) -> Self {
        let mut dims = [0; Self::MOST];
        dims[0] = elements;
        Self { dims, rank: 1 }
    }

    /// This shape with another outermost dimension; a scalar becomes `[rows]`.
    pub(crate) fn with_rows(mut self, rows: usize) -> Self {
        self.dims[0] = rows;
        self.rank = self.rank.max(1);
        self
    }

    /// Number of elements. Only shapes whose size in bytes fits an address reach a tensor.
    pub fn elements(&self) -> usize {
        self.iter().product()
    }

    /// Size in bytes of so many elements; returns an error if it does not fit an address.
    pub fn bytes(&self, dtype: DType) -> Result<usize, DeviceError> {
        self.iter()
            .try_fold(dtype.size(), |bytes, &dim| bytes.checked_mul(dim))
            .filter(|&bytes| bytes <= isize::MAX as usize)
            .ok_or_else(|| DeviceError::TooLarge {
                shape: self.to_vec(),
                dtype,
            })
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
