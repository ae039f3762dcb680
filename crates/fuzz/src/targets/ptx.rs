//! PTX for the emulator.

use crate::Target;
use tightrope_emulator::{DeviceMemory, Module};

pub(super) const PTX: Target = Target {
    name: "ptx",
    run: |bytes| {
        Module::load(std::str::from_utf8(bytes)?, &mut DeviceMemory::new())?;
        Ok(())
    },
    seeds: || {
        vec![
            include_str!("../../../kernels/src/sum_of_squares/kernel.ptx").into(),
            SMALL.into(),
        ]
    },
    words: &[
        ".visible",
        ".entry",
        ".func",
        ".param",
        ".reg",
        ".shared",
        ".global",
        ".const",
        ".align",
        ".b8",
        ".b32",
        ".u64",
        ".f32",
        ".pred",
        ".extern",
        ".maxntid",
        ".version",
        ".target",
        "mov",
        "ld",
        "st",
        "mad.lo.s32",
        "fma.rn.f32",
        "cvt.rn.f32.u32",
        "setp.lt.s32",
        "bra",
        "bar.sync",
        "mma.sync",
        "cp.async",
        "ldmatrix",
        "shfl.sync.bfly.b32",
        "atom.global.add.f32",
        "@%p1",
        "0f3F800000",
        "0xFFFFFFFFFFFFFFFF",
        "%tid.x",
        ".v4",
        ".loc",
        ".pragma",
        ".branchtargets",
        "call.uni",
    ],
};

const SMALL: &str = "\
.version 9.0
.target sm_80
.address_size 64
.const .align 4 .b8 TABLE[4] = {1, 2, 3, 4};
.visible .entry add(.param .u64 add_param_0, .param .u32 add_param_1)
.maxntid 128, 1, 1
{
    .reg .pred %p<2>;
    .reg .b32 %r<4>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<4>;
    .shared .align 4 .b8 buffer[64];
    ld.param.u64 %rd1, [add_param_0];
    ld.param.u32 %r1, [add_param_1];
    mov.u32 %r2, %tid.x;
    setp.ge.u32 %p1, %r2, %r1;
    @%p1 bra $end;
    cvta.to.global.u64 %rd2, %rd1;
    mul.wide.u32 %rd3, %r2, 4;
    add.s64 %rd2, %rd2, %rd3;
    ld.global.f32 %f1, [%rd2];
    add.f32 %f2, %f1, 0f3F800000;
    st.global.f32 [%rd2], %f2;
$end:
    ret;
}
";
