//! The index width on both sides of 2³¹ elements, on a device that only notes sizes.

use tightrope_device::{DType, Device, DeviceError, IndexWidth, Tensor};
use tightrope_rope::{Direction, Heads, Pairing, RopeError, Rotate};

/// Memory without contents.
#[derive(Clone, Debug)]
struct Sizes;

impl Device for Sizes {
    type Buffer = usize;
    fn name(&self) -> String {
        "sizes".to_owned()
    }
    fn allocate(&self, bytes: usize) -> Result<usize, DeviceError> {
        Ok(bytes)
    }
    fn bytes(buffer: &usize) -> usize {
        *buffer
    }
    fn write(&self, _: &mut usize, _: usize, _: &[u8]) -> Result<(), DeviceError> {
        unreachable!("nothing is written")
    }
    fn read(&self, _: &usize, _: usize, _: &mut [u8]) -> Result<(), DeviceError> {
        unreachable!("nothing is read")
    }
    fn copy(
        &self,
        _: &usize,
        _: usize,
        _: &mut usize,
        _: usize,
        _: usize,
    ) -> Result<(), DeviceError> {
        unreachable!("nothing is copied")
    }
    fn zero(&self, _: &mut usize, _: usize, _: usize) -> Result<(), DeviceError> {
        unreachable!("nothing is zeroed")
    }
    fn synchronize(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn offsets_beyond_two_to_the_31_need_the_wide_form() {
    // Queries of width 4096, as Llama 3 8B has them, pass 2³¹ elements at 524,288 tokens.
    let (heads, head_dim) = (32, 128);
    for (tokens, row_stride, expected) in [
        ((1 << 19) - 1, 4096, IndexWidth::Narrow),
        (1 << 19, 4096, IndexWidth::Wide),
        // The stride counts, not the heads alone.
        (3, 1 << 30, IndexWidth::Wide),
    ] {
        let zeros = |len: usize| Tensor::zeros(&Sizes, DType::F32, &[len]).unwrap();
        let (mut q, mut k) = (zeros(tokens * row_stride), zeros(tokens * head_dim));
        let table = zeros(tokens * head_dim / 2);
        let args = Rotate {
            q: Heads {
                tensor: &mut q,
                heads,
                row_stride,
            },
            k: Heads {
                tensor: &mut k,
                heads: 1,
                row_stride: head_dim,
            },
            cos: &table,
            sin: &table,
            tokens,
            head_dim,
            rotary_dim: head_dim,
            pairing: Pairing::Halves,
            direction: Direction::Forward,
        };
        assert_eq!(args.check().unwrap(), expected);
        args.check_width(IndexWidth::Wide).unwrap();
        let narrow = args.check_width(IndexWidth::Narrow);
        match expected {
            IndexWidth::Narrow => narrow.unwrap(),
            IndexWidth::Wide => assert!(matches!(narrow, Err(RopeError::TooNarrow))),
        }
    }
}
