//! Arguments of the rotation that are refused.

use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};
use tightrope_testkit::cuda;

#[test]
fn arguments_that_do_not_fit_are_refused() {
    check_refusals(&Cpu::new(1).unwrap());
    check_refusals(cuda());
}

fn check_refusals<D: Rope>(device: &D) {
    // The wrong argument, and the operand or parameter that the error names.
    let broken = |change: &str| {
        let zeros = |dtype, len: usize| Tensor::zeros(device, dtype, &[len]).unwrap();
        let (mut q, mut k) = (zeros(DType::F32, 24), zeros(DType::F32, 24));
        let (mut cos, mut sin) = (zeros(DType::F32, 12), zeros(DType::F32, 12));
        match change {
            "q" => q = zeros(DType::F32, 23),
            "q dtype" => q = zeros(DType::U32, 24),
            "k dtype" => k = zeros(DType::BF16, 24),
            "sin dtype" => sin = zeros(DType::BF16, 12),
            "cos" => cos = zeros(DType::F32, 11),
            "sin" => sin = zeros(DType::F32, 11),
            _ => {}
        }
        let (rotary_dim, row_stride) = match change {
            "odd" => (7, 8),
            "wide" => (10, 8),
            "row_stride" => (8, 7),
            _ => (8, 8),
        };
        let args = Rotate {
            q: Heads {
                tensor: q.view_mut(),
                heads: 1,
                row_stride,
            },
            k: Heads {
                tensor: k.view_mut(),
                heads: 1,
                row_stride: 8,
            },
            cos: cos.view(),
            sin: sin.view(),
            tokens: 3,
            head_dim: 8,
            rotary_dim,
            pairing: Pairing::Halves,
            direction: Direction::Forward,
        };
        device.rope(args.checked()?)
    };
    broken("nothing").unwrap();
    for operand in ["q", "cos", "sin"] {
        let error = broken(operand).unwrap_err();
        assert!(
            matches!(error, KernelError::TooShort { operand: o, .. } if o == operand),
            "{error}"
        );
    }
    for (operand, dtype) in [("q", DType::U32), ("k", DType::BF16), ("sin", DType::BF16)] {
        let error = broken(&format!("{operand} dtype")).unwrap_err();
        assert!(
            matches!(error, KernelError::DType { operand: o, got, .. } if o == operand && got == dtype),
            "{error}"
        );
    }
    for (change, parameter) in [
        ("odd", "rotary_dim"),
        ("wide", "rotary_dim"),
        ("row_stride", "row_stride"),
    ] {
        let error = broken(change).unwrap_err();
        assert!(
            matches!(error, KernelError::Value { operand, .. } if operand == parameter),
            "{error}"
        );
    }
}

#[test]
fn f16_is_refused() {
    let cpu = Cpu::new(1).unwrap();
    let dtype = DType::F16;
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let (mut q, mut k) = (zeros(dtype, 8), zeros(dtype, 8));
    let table = zeros(DType::F32, 4);
    let heads = |tensor| Heads {
        tensor,
        heads: 1,
        row_stride: 8,
    };
    let args = Rotate {
        q: heads(q.view_mut()),
        k: heads(k.view_mut()),
        cos: table.view(),
        sin: table.view(),
        tokens: 1,
        head_dim: 8,
        rotary_dim: 8,
        pairing: Pairing::Halves,
        direction: Direction::Forward,
    };
    let error = args.checked().unwrap_err().to_string();
    assert!(
        error.contains("`q`") && error.contains(dtype.name()),
        "{error}"
    );
}
