//! Arguments that are refused.

use super::*;
use tightrope_device::{Cpu, DeviceError, Tensor};
use tightrope_testkit::cuda_with_small_limits;

/// Operands of the forward pass, then of the backward pass, with their elements.
const OPERANDS: [(&str, usize); 20] = [
    ("q.x", 12),
    ("q.weight", 3),
    ("q.y", 12),
    ("q.rstd", 4),
    ("k.x", 6),
    ("k.weight", 3),
    ("k.y", 6),
    ("k.rstd", 2),
    ("cos", 2),
    ("sin", 2),
    ("q.dx", 12),
    ("q.x", 12),
    ("q.rstd", 4),
    ("q.dweight", 3),
    ("k.dx", 6),
    ("k.x", 6),
    ("k.rstd", 2),
    ("k.dweight", 3),
    ("cos", 2),
    ("sin", 2),
];

#[test]
fn arguments_that_do_not_fit_are_refused() {
    // Two tokens, two heads of queries and one of keys, three elements, two of which rotate.
    for (index, (name, len)) in OPERANDS.into_iter().enumerate() {
        // One element too few, or the right number of another type.
        for (dtype, len) in [(DType::F32, len - 1), (DType::U32, len), (DType::BF16, len)] {
            let error = check(Some((index, dtype, len)), 2).unwrap_err();
            assert!(!matches!(error, KernelError::Value { .. }));
            // Where the first operand has another type, the others do not fit it.
            let first = dtype == DType::BF16 && ["q.x", "q.dx"].contains(&name);
            assert!(
                first || error.to_string().contains(&format!("`{name}`")),
                "{name}: {error}"
            );
        }
    }
    check(None, 2).unwrap();
    check(None, 0).unwrap();
    for rotary_dim in [1, 4] {
        let error = check(None, rotary_dim).unwrap_err();
        assert!(matches!(
            error,
            KernelError::Value {
                operand: "rotary_dim",
                ..
            }
        ));
    }
}

/// The check of both passes, with one operand replaced.
fn check(wrong: Option<(usize, DType, usize)>, rotary_dim: usize) -> Result<(), KernelError> {
    let cpu = Cpu::new(1).unwrap();
    let mut index = 0;
    let mut tensors = OPERANDS.map(|(_, len)| {
        let (dtype, len) = match wrong {
            Some((wrong, dtype, len)) if wrong == index => (dtype, len),
            _ => (DType::F32, len),
        };
        index += 1;
        Tensor::zeros(&cpu, dtype, &[len]).unwrap()
    });
    let weight = Tensor::zeros(&cpu, DType::F32, &[3]).unwrap();
    let [
        q_x,
        q_weight,
        q_y,
        q_rstd,
        k_x,
        k_weight,
        k_y,
        k_rstd,
        cos,
        sin,
        backward @ ..,
    ] = &mut tensors;
    Forward {
        q: HeadsForward {
            x: q_x.view(),
            weight: q_weight.view(),
            y: q_y.view_mut(),
            rstd: q_rstd.view_mut(),
            heads: 2,
        },
        k: HeadsForward {
            x: k_x.view(),
            weight: k_weight.view(),
            y: k_y.view_mut(),
            rstd: k_rstd.view_mut(),
            heads: 1,
        },
        plus_one: false,
        eps: EPS,
        cos: cos.view(),
        sin: sin.view(),
        tokens: 2,
        head_dim: 3,
        rotary_dim,
    }
    .check()?;
    let [
        q_dx,
        q_x,
        q_rstd,
        q_dweight,
        k_dx,
        k_x,
        k_rstd,
        k_dweight,
        cos,
        sin,
    ] = backward;
    Backward {
        q: HeadsBackward {
            dx: q_dx.view_mut(),
            x: q_x.view(),
            rstd: q_rstd.view(),
            weight: weight.view(),
            dweight: Some(q_dweight.view_mut()),
            heads: 2,
        },
        k: HeadsBackward {
            dx: k_dx.view_mut(),
            x: k_x.view(),
            rstd: k_rstd.view(),
            weight: weight.view(),
            dweight: Some(k_dweight.view_mut()),
            heads: 1,
        },
        plus_one: false,
        cos: cos.view(),
        sin: sin.view(),
        tokens: 2,
        head_dim: 3,
        rotary_dim,
    }
    .check()
}

/// A copy of such a gradient for every warp does not fit the shared memory of a block.
#[test]
fn heads_of_thousands_of_features_can_be_normalised_but_not_trained_on_cuda_with_small_limits() {
    let mut case = Case::new(DType::BF16, shape(1, [1, 1], 3200, 3200), false);
    let result = case.try_run(cuda_with_small_limits());
    assert!(matches!(
        result,
        Err(KernelError::Device(DeviceError::NoKernel { .. }))
    ));
    (case.q.frozen, case.k.frozen) = (true, true);
    case.try_run(cuda_with_small_limits()).unwrap();
}
