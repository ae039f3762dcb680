//! An id outside the table ends the context of a GPU, so each direction is tested in a separate
//! process.

use std::process::Command;
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{
    Check,
    embedding::{Backward, Embedding, Forward},
};
use tightrope_testkit::{cuda, is_emulated};

const DIRECTION: &str = "TIGHTROPE_TEST_DIRECTION";

#[test]
fn an_id_outside_the_table_is_a_trap_and_no_wild_access() {
    if let Ok(direction) = std::env::var(DIRECTION) {
        return meet_the_trap(&direction);
    }
    for direction in ["forward", "backward"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.env(DIRECTION, direction).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{direction}: {said}");
    }
}

fn meet_the_trap(direction: &str) {
    let device = cuda();
    let ids = Tensor::from_slice(device, &[3], &[0u32, 4, 3]).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(device, DType::F32, shape).unwrap();
    let (mut table, mut y) = (zeros(&[4, 2]), zeros(&[3, 2]));
    let (tokens, vocabulary, hidden, scale) = (3, 4, 2, 1.0);
    let result = match direction {
        "forward" => device.embedding_forward(
            Forward {
                ids: ids.view(),
                table: table.view(),
                scale,
                y: y.view_mut(),
                tokens,
                vocabulary,
                hidden,
            }
            .checked()
            .unwrap(),
        ),
        _ => device.embedding_backward(
            Backward {
                ids: ids.view(),
                dy: y.view(),
                scale,
                dtable: table.view_mut(),
                tokens,
                vocabulary,
                hidden,
            }
            .checked()
            .unwrap(),
        ),
    };
    // The emulator reports it at the launch, and a GPU when it is waited for.
    let error = result.map_err(|error| error.to_string());
    let error = error.and_then(|()| device.synchronize().map_err(|error| error.to_string()));
    let error = error.unwrap_err();
    assert!(error.contains("trap") || !is_emulated(), "{error}");
}
