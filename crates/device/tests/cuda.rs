//! Memory of a GPU: values are read as written, ranges are checked, the peak is counted.

use std::{thread::sleep, time::Duration};
use tightrope_device::{Cuda, DType, Device, DeviceError, Tensor};
use tightrope_testkit::cuda;

#[test]
fn what_is_written_copied_and_zeroed_is_read() {
    let device = cuda();
    let mut a = Tensor::zeros(device, DType::U8, &[10]).unwrap();
    assert_eq!(a.to_vec::<u8>().unwrap(), [0; 10], "memory is zeroed");
    let part = a.view_mut().elements(3..7).unwrap();
    part.write(&[1u8, 2, 3, 4]).unwrap();
    let mut b = Tensor::zeros(device, DType::U8, &[4]).unwrap();
    let source = a.view().elements(4..7).unwrap();
    let (_, target) = b.view_mut().split_rows(1).unwrap();
    target.copy_from(source).unwrap();
    b.view_mut().elements(2..3).unwrap().zero().unwrap();
    assert_eq!(b.to_vec::<u8>().unwrap(), [0, 2, 0, 4]);
}

#[test]
fn ranges_beyond_the_end_are_refused_and_empty_ones_are_not() {
    let device = cuda();
    let mut a = Tensor::zeros(device, DType::U8, &[4]).unwrap();
    assert!(a.write(&[0u8; 5]).is_err());
    assert!(a.view_mut().write_bytes(&[0; 3]).is_err());
    assert!(a.view().elements(5..5).is_err());
    a.view_mut()
        .elements(4..4)
        .unwrap()
        .write::<u8>(&[])
        .unwrap();
    let empty = Tensor::zeros(device, DType::F32, &[0]).unwrap();
    empty.read::<f32>(&mut []).unwrap();
}

#[test]
fn a_tensor_goes_there_and_back() {
    let tensor = Tensor::from_slice(cuda(), &[2, 3], &[1f32, -2., 3., f32::NAN, 5., 6.]).unwrap();
    let values = tensor.to_vec::<f32>().unwrap();
    assert!(values[3].is_nan() && values[5] == 6.0 && values[1] == -2.0);
    assert!(Tensor::zeros(cuda(), DType::F32, &[usize::MAX / 8]).is_err());
}

#[test]
fn scratch_is_kept_and_counts() {
    let device = cuda();
    let large = device.scratch(DType::U8, &[1000]).unwrap();
    let mut small = device.scratch(DType::F32, &[10]).unwrap();
    assert!(device.pool().bytes() >= 1040 && device.peak_bytes().unwrap() >= 1040);
    small.view_mut().write(&[7f32; 10]).unwrap();
    assert_eq!(small.view().to_vec::<f32>().unwrap(), [7.0; 10]);
    drop((small, large));
}

#[test]
fn devices_tell_their_memory_apart() {
    let device = cuda();
    assert!(device.shares_memory_with(&device.with_small_limits()));
    let other = Cuda::new(0).unwrap();
    assert!(!device.shares_memory_with(&other));
    let mut here = Tensor::from_slice(device, &[1], &[1f32]).unwrap();
    let there = Tensor::from_slice(&other, &[1], &[1f32]).unwrap();
    let copied = here.view_mut().copy_from(there.view());
    assert!(matches!(copied, Err(DeviceError::OtherDevice { .. })));
}

#[test]
fn a_gpu_that_is_not_there_is_named() {
    let _loaded = cuda();
    let error = Cuda::new(1000).unwrap_err().to_string();
    assert!(error.contains("1000"), "{error}");
}

#[test]
fn the_time_is_that_between_the_events() {
    let device = cuda();
    let mut bytes = Tensor::zeros(device, DType::U8, &[1 << 20]).unwrap();
    let mut zeroed = |pause| {
        let issue = || {
            bytes.zero()?;
            sleep(pause);
            bytes.zero()
        };
        device.time(issue).unwrap()
    };
    let pause = Duration::from_millis(20);
    let (short, long) = (zeroed(Duration::ZERO), zeroed(pause));
    // The first event is reached before the pause, the second after it.
    assert!(long >= pause.mul_f64(0.99), "{long:?}");
    assert!(short < long, "{short:?} {long:?}");
    let failing = || {
        Err(DeviceError::WrongDType {
            expected: DType::F32,
            got: DType::U8,
        })
    };
    assert!(device.time(failing).is_err());
}
