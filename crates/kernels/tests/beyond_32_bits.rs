//! Gated units, norms, and norms of heads with their rotation, of more than 2³¹ and 2³² elements on
//! the emulator, which stores only what is touched and here executes only the first and last blocks
//! of each grid.
//!
//! This is a separate program, because the choice of blocks applies to the whole process.

use tightrope_device::{Cuda, DType, IndexWidth, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    glu::{self, Activation, Glu},
    qk_norm_rope::{self, HeadsBackward, HeadsForward, QkNormRope},
    rms_norm::{self, RmsNorm},
};
use tightrope_testkit::{Random, cuda, is_emulated, tensor};

/// Number of elements at the end that are checked: less than two blocks of any operation.
const TAIL: usize = 1024;

/// A tensor of zeros with these numbers at its end.
fn far(values: &[f32], elements: usize) -> Tensor<Cuda> {
    far_of(DType::BF16, values, elements)
}

/// The same in any type.
fn far_of(dtype: DType, values: &[f32], elements: usize) -> Tensor<Cuda> {
    let near = tensor(cuda(), dtype, &[values.len()], values);
    let mut far = Tensor::zeros(cuda(), dtype, &[elements]).unwrap();
    let place = far.view_mut().elements(elements - values.len()..elements);
    place.unwrap().copy_from(near.view()).unwrap();
    far
}

/// The last elements, as they are stored.
fn tail(tensor: &Tensor<Cuda>) -> Vec<u8> {
    let elements = tensor.len() - TAIL..tensor.len();
    let bytes = tensor
        .view()
        .elements(elements)
        .unwrap()
        .reinterpreted(DType::U8);
    bytes.unwrap().to_vec().unwrap()
}

/// `y`, `dgate`, `dup` of the last elements.
fn gated(device: &Cuda, elements: usize) -> Result<[Vec<u8>; 3], KernelError> {
    let mut random = Random::new(1);
    let mut numbers = || far(&random.normal(TAIL, 1.0), elements);
    let (mut gate, mut up, mut dy) = (numbers(), numbers(), numbers());
    let mut y = far(&[], elements);
    let activation = Activation::Silu;
    let forward = glu::Forward {
        gate: gate.view(),
        up: up.view(),
        y: y.view_mut(),
        activation,
        elements,
    };
    device.glu_forward(forward.checked()?)?;
    let backward = glu::Backward {
        gate: gate.view_mut(),
        up: up.view_mut(),
        dy: dy.view_mut(),
        activation,
        elements,
    };
    device.glu_backward(backward.checked()?)?;
    Ok([y, gate, up].map(|tensor| tail(&tensor)))
}

/// `y` and `dx` of the last row.
fn normed(device: &Cuda, rows: usize) -> Result<[Vec<u8>; 2], KernelError> {
    let dim = TAIL;
    let mut random = Random::new(2);
    let mut numbers = || far(&random.normal(TAIL, 1.0), rows * dim);
    let (x, dy) = (numbers(), numbers());
    let (mut y, mut dx) = (far(&[], rows * dim), far(&[], rows * dim));
    let weight = tensor(cuda(), DType::F32, &[dim], &vec![0.5; dim]);
    let mut rstd = Tensor::zeros(cuda(), DType::F32, &[rows])?;
    let forward = rms_norm::Forward {
        x: x.view(),
        residual: None,
        weight: weight.view(),
        plus_one: false,
        eps: 1e-6,
        y: y.view_mut(),
        rstd: rstd.view_mut(),
        rows,
        dim,
    };
    device.rms_norm_forward(forward.checked()?)?;
    let backward = rms_norm::Backward {
        dy: dy.view(),
        x: x.view(),
        rstd: rstd.view(),
        weight: weight.view(),
        plus_one: false,
        dx: dx.view_mut(),
        accumulate: false,
        dweight: None,
        rows,
        dim,
    };
    device.rms_norm_backward(backward.checked()?)?;
    Ok([tail(&y), tail(&dx)])
}

/// Heads of the keys, which come last in a grid, and features of a head.
const KEY_HEADS: usize = 8;
const HEAD_DIM: usize = TAIL / KEY_HEADS;

/// `y` and `dx` of the keys of the last token; there is one head of queries.
fn rotated(device: &Cuda, tokens: usize) -> Result<[Vec<u8>; 2], KernelError> {
    let pairs = HEAD_DIM / 2;
    let mut random = Random::new(3);
    let mut numbers =
        |dtype, of_token: usize| far_of(dtype, &random.normal(of_token, 1.0), tokens * of_token);
    let heads = [1, KEY_HEADS];
    let x = heads.map(|heads| numbers(DType::BF16, heads * HEAD_DIM));
    let mut y = heads.map(|heads| far(&[], tokens * heads * HEAD_DIM));
    let mut dx = heads.map(|heads| numbers(DType::BF16, heads * HEAD_DIM));
    let [cos, sin] = [(); 2].map(|()| numbers(DType::F32, pairs));
    let mut rstd = heads.map(|heads| far_of(DType::F32, &[], tokens * heads));
    let weight = tensor(cuda(), DType::F32, &[HEAD_DIM], &[0.5; HEAD_DIM]);
    let ([q_x, k_x], [q_y, k_y], [q_rstd, k_rstd]) = (&x, &mut y, &mut rstd);
    let side = |x, y, rstd, heads| HeadsForward {
        x,
        weight: weight.view(),
        y,
        rstd,
        heads,
    };
    let forward = qk_norm_rope::Forward {
        q: side(q_x.view(), q_y.view_mut(), q_rstd.view_mut(), 1),
        k: side(k_x.view(), k_y.view_mut(), k_rstd.view_mut(), KEY_HEADS),
        plus_one: false,
        eps: 1e-6,
        cos: cos.view(),
        sin: sin.view(),
        tokens,
        head_dim: HEAD_DIM,
        rotary_dim: HEAD_DIM,
    };
    device.qk_norm_rope_forward(forward.checked()?)?;
    let [q_dx, k_dx] = &mut dx;
    let side = |dx, x, rstd, heads| HeadsBackward {
        dx,
        x,
        rstd,
        weight: weight.view(),
        dweight: None,
        heads,
    };
    let backward = qk_norm_rope::Backward {
        q: side(q_dx.view_mut(), q_x.view(), rstd[0].view(), 1),
        k: side(k_dx.view_mut(), k_x.view(), rstd[1].view(), KEY_HEADS),
        plus_one: false,
        cos: cos.view(),
        sin: sin.view(),
        tokens,
        head_dim: HEAD_DIM,
        rotary_dim: HEAD_DIM,
    };
    device.qk_norm_rope_backward(backward.checked()?)?;
    Ok([tail(&y[1]), tail(&dx[1])])
}

#[test]
fn the_last_elements_are_right_and_the_narrow_width_is_caught() {
    if !is_emulated() {
        // A GPU would have to compute it all.
        return;
    }
    let near = gated(cuda(), TAIL).unwrap();
    let near_row = normed(cuda(), 3).unwrap();
    let near_token = rotated(cuda(), 3).unwrap();
    // SAFETY: this is the only test of this program, and nothing else reads or writes the
    // environment while it does.
    unsafe { std::env::set_var("TIGHTROPE_EMULATOR_BLOCKS", "2+2") };
    let narrow = cuda().forcing(IndexWidth::Narrow);
    for passed in [1 << 31, 1 << 32] {
        let elements = passed + 2048 + 40;
        assert!(gated(cuda(), elements).unwrap() == near, "{elements}");
        let row = normed(cuda(), passed / TAIL + 5).unwrap();
        assert!(row == near_row, "{passed}");
        let token = rotated(cuda(), passed / TAIL + 5).unwrap();
        assert!(token == near_token, "{passed}");
    }
    // With 32 bits, the last blocks reach the first elements, where the first blocks are.
    let elements = (1 << 32) + 2048 + 40;
    for error in [
        gated(&narrow, elements).unwrap_err().to_string(),
        rotated(&narrow, (1 << 32) / TAIL + 5)
            .unwrap_err()
            .to_string(),
    ] {
        assert!(error.contains("emulator"), "{error}");
    }
}
