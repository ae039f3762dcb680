//! `ldmatrix` and `mma` end to end: fragments loaded from shared memory give the product.
mod support;
use support::{Arg, Machine, module};
use tightrope_emulator::{FindingKind, LaunchConfig};

/// One warp: A (16×16) and B (8×16, so that its rows are columns of the product) of 16-bit
/// elements go through shared memory and `ldmatrix` into one `mma`; C (16×8, f32) comes out.
fn program(element: &str, load_b: &str) -> String {
    module(&format!(
        ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c)\n{{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<40>;\n.reg .f32 %f<20>;\n.reg .b64 %rd<20>;\n\
         .shared .align 16 .b8 sa[512];\n.shared .align 16 .b8 sb[256];\n\
         ld.param.u64 %rd1, [a];\nld.param.u64 %rd2, [b];\nld.param.u64 %rd3, [c];\nmov.u32 %r1, %tid.x;\n\
         shl.b32 %r2, %r1, 4;\ncvt.u64.u32 %rd4, %r2;\nadd.s64 %rd5, %rd1, %rd4;\n\
         ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd5];\nmov.u32 %r7, sa;\nadd.u32 %r8, %r7, %r2;\n\
         st.shared.v4.u32 [%r8], {{%r3, %r4, %r5, %r6}};\n\
         setp.lt.u32 %p1, %r1, 16;\nadd.s64 %rd6, %rd2, %rd4;\nmov.u32 %r9, sb;\nadd.u32 %r10, %r9, %r2;\n\
         @%p1 ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd6];\n@%p1 st.shared.v4.u32 [%r10], {{%r3, %r4, %r5, %r6}};\n\
         bar.sync 0;\n\
         and.b32 %r11, %r1, 15;\nshl.b32 %r11, %r11, 5;\nshr.u32 %r12, %r1, 4;\nshl.b32 %r12, %r12, 4;\n\
         add.u32 %r13, %r7, %r11;\nadd.u32 %r13, %r13, %r12;\n\
         ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r20, %r21, %r22, %r23}}, [%r13];\n\
         {load_b}\n\
         mov.f32 %f0, 0f00000000;\n\
         mma.sync.aligned.m16n8k16.row.col.f32.{element}.{element}.f32 {{%f1, %f2, %f3, %f4}}, \
         {{%r20, %r21, %r22, %r23}}, {{%r24, %r25}}, {{%f0, %f0, %f0, %f0}};\n\
         shr.u32 %r30, %r1, 2;\nand.b32 %r31, %r1, 3;\nshl.b32 %r32, %r30, 5;\nshl.b32 %r33, %r31, 3;\n\
         add.u32 %r34, %r32, %r33;\ncvt.u64.u32 %rd7, %r34;\nadd.s64 %rd8, %rd3, %rd7;\n\
         st.global.v2.f32 [%rd8], {{%f1, %f2}};\nst.global.v2.f32 [%rd8+256], {{%f3, %f4}};\nret;\n}}"
    ))
}

/// Rows of B are n: lanes 0 to 7 give the rows of k 0..8, lanes 8 to 15 those of k 8..16.
const LOAD_B: &str = "and.b32 %r14, %r1, 7;\nshl.b32 %r14, %r14, 5;\nshr.u32 %r15, %r1, 3;\nand.b32 %r15, %r15, 1;\n\
     shl.b32 %r15, %r15, 4;\nadd.u32 %r16, %r9, %r14;\nadd.u32 %r16, %r16, %r15;\n\
     ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r24, %r25}, [%r16];";

/// Rows of B are k (16×8): the same fragments through `.trans`.
const LOAD_B_TRANSPOSED: &str = "and.b32 %r14, %r1, 15;\nshl.b32 %r14, %r14, 4;\nadd.u32 %r16, %r9, %r14;\n\
     ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r24, %r25}, [%r16];";

/// Small integers: exact in every format, so the product is too.
fn integers(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| (i * step % 13) as f32 - 6.0).collect()
}

fn encode(element: &str, value: f32) -> u16 {
    if element == "bf16" {
        return (value.to_bits() >> 16) as u16;
    }
    // f16 of a small integer.
    let bits = value.to_bits();
    if value == 0.0 {
        return 0;
    }
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    ((bits >> 16 & 0x8000) | (exponent as u32) << 10 | bits >> 13 & 0x3ff) as u16
}

fn run(
    element: &str,
    load_b: &str,
    transposed: bool,
    edit: impl Fn(String) -> String,
) -> (Vec<f32>, Vec<f32>) {
    let (a, b) = (integers(256, 5), integers(128, 7));
    let mut machine = Machine::new(&edit(program(element, load_b)));
    let bits = |values: &[f32]| {
        values
            .iter()
            .map(|v| encode(element, *v))
            .collect::<Vec<_>>()
    };
    let (da, db) = (machine.upload_u16(&bits(&a)), machine.upload_u16(&bits(&b)));
    let c = machine.output(512);
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1]);
    machine.clean("k", &config, &[Arg::U64(da), Arg::U64(db), Arg::U64(c)]);
    let at = |k: usize, n: usize| {
        if transposed {
            b[k * 8 + n]
        } else {
            b[n * 16 + k]
        }
    };
    let product = |i: usize| (0..16).map(|k| a[i / 8 * 16 + k] * at(k, i % 8)).sum();
    (
        machine.download_f32(c, 128),
        (0..128).map(product).collect(),
    )
}

#[test]
fn the_fragments_of_ldmatrix_are_those_of_mma() {
    for element in ["bf16", "f16"] {
        for (load_b, transposed) in [(LOAD_B, false), (LOAD_B_TRANSPOSED, true)] {
            let (got, expected) = run(element, load_b, transposed, |text| text);
            assert_eq!(got, expected, "{element}, transposed {transposed}");
        }
    }
}

#[test]
fn swapped_fragments_change_the_product() {
    for (from, to) in [
        (
            "{%r20, %r21, %r22, %r23}, {%r24",
            "{%r21, %r20, %r22, %r23}, {%r24",
        ),
        (
            "{%r20, %r21, %r22, %r23}, {%r24",
            "{%r20, %r22, %r21, %r23}, {%r24",
        ),
        ("{%r24, %r25}, {%f0", "{%r25, %r24}, {%f0"),
        ("m8n8.x4.shared", "m8n8.x4.trans.shared"),
    ] {
        let (got, expected) = run("bf16", LOAD_B, false, |text| {
            assert!(text.contains(from));
            text.replace(from, to)
        });
        assert_ne!(got, expected, "{to}");
    }
}

#[test]
fn a_part_of_a_warp_cannot_multiply() {
    let text = program("bf16", LOAD_B).replace(
        "mov.f32 %f0, 0f00000000;",
        "mov.f32 %f0, 0f00000000;\nsetp.ge.u32 %p2, %r1, 16;\n@%p2 ret;",
    );
    let mut machine = Machine::new(&text);
    let (a, b, c) = (
        machine.upload_u16(&[0; 256]),
        machine.upload_u16(&[0; 128]),
        machine.output(512),
    );
    let config = LaunchConfig::new([1, 1, 1], [32, 1, 1]);
    machine.caught(
        "k",
        &config,
        &[Arg::U64(a), Arg::U64(b), Arg::U64(c)],
        FindingKind::InvalidWarpOperation,
    );
}

/// TF32: registers hold f32, of which the lower 13 bits are not read.
#[test]
fn tf32_reads_nineteen_bits() {
    let text = module(
        ".visible .entry k(.param .u64 c, .param .u32 a)\n{\n.reg .b32 %r<10>;\n.reg .f32 %f<10>;\n.reg .b64 %rd<4>;\n\
         ld.param.u64 %rd1, [c];\nld.param.u32 %r1, [a];\nmov.u32 %r2, %tid.x;\nmov.u32 %r3, 0x3f800000;\nmov.f32 %f0, 0f3F800000;\n\
         mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, {%r1, %r1, %r1, %r1}, {%r3, %r3}, {%f0, %f0, %f0, %f0};\n\
         mul.wide.u32 %rd2, %r2, 16;\nadd.s64 %rd1, %rd1, %rd2;\nst.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};\nret;\n}",
    );
    let mut machine = Machine::new(&text);
    let c = machine.output(512);
    let one_and_a_bit = 1f32.to_bits() | 0x1fff;
    machine.clean(
        "k",
        &LaunchConfig::new([1, 1, 1], [32, 1, 1]),
        &[Arg::U64(c), Arg::U32(one_and_a_bit)],
    );
    assert_eq!(machine.download_f32(c, 128), vec![9.0; 128]);
}
