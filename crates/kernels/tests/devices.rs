//! Operands of two devices, and of a type in which a device does not compute, are refused by name.

use tightrope_device::{Cpu, Cuda, DType, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    glu::{Activation, Forward, Glu},
};
use tightrope_testkit::cuda;

fn args<'a, D: Glu>(
    gate: &'a Tensor<D>,
    up: &'a Tensor<D>,
    y: &'a mut Tensor<D>,
) -> Forward<'a, D> {
    Forward {
        gate: gate.view(),
        up: up.view(),
        y: y.view_mut(),
        activation: Activation::Silu,
        elements: 4,
    }
}

fn zeros<D: Glu>(device: &D, dtype: DType) -> Tensor<D> {
    Tensor::zeros(device, dtype, &[4]).unwrap()
}

#[test]
fn operands_of_two_devices_are_refused_by_name() {
    let (here, there) = (cuda(), &Cuda::new(0).unwrap());
    let (gate, up, mut y) = (
        zeros(here, DType::F32),
        zeros(there, DType::F32),
        zeros(here, DType::F32),
    );
    let error = args(&gate, &up, &mut y).checked().unwrap_err();
    assert!(matches!(
        error,
        KernelError::TwoDevices { operand: "up", .. }
    ));
    let up = zeros(here, DType::F32);
    let checked = args(&gate, &up, &mut y).checked().unwrap();
    let error = there.glu_forward(checked).unwrap_err();
    assert!(matches!(error, KernelError::OtherDevice { .. }), "{error}");
    // Handles of one device share its memory.
    let checked = args(&gate, &up, &mut y).checked().unwrap();
    here.with_small_limits().glu_forward(checked).unwrap();
}

#[test]
fn a_type_in_which_a_device_does_not_compute_is_refused_by_name() {
    let cpu = Cpu::new(1).unwrap();
    let (gate, up) = (zeros(&cpu, DType::F16), zeros(&cpu, DType::F16));
    let mut y = zeros(&cpu, DType::F16);
    let error = args(&gate, &up, &mut y).checked().unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("`gate`") && said.contains("f16") && said.contains("f32, bf16 on cpu"),
        "{said}"
    );
    let (gate, up) = (zeros(cuda(), DType::BF16), zeros(cuda(), DType::BF16));
    let mut y = zeros(cuda(), DType::BF16);
    args(&gate, &up, &mut y).checked().unwrap();
    let (gate, up) = (zeros(cuda(), DType::I32), zeros(cuda(), DType::I32));
    let error = args(&gate, &up, &mut y).checked().unwrap_err();
    assert!(matches!(
        error,
        KernelError::DType {
            operand: "gate",
            ..
        }
    ));
}
